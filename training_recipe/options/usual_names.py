"""What settings are called elsewhere, and what says the same here."""

from __future__ import annotations

import re
from collections.abc import Iterable

from transformer_spec.errors import closest

# What to give here: the names that other programs have for it.
USUAL_NAMES = {
    "--peak-lr": "lr learning-rate max-lr base-lr initial-lr learn-rate step-size",
    "--warmup-steps": "warmup warm-up lr-warmup num-warmup-steps warmup-updates warmup-ratio",
    "--schedule": "lr-scheduler lr-scheduler-type lr-schedule scheduler lr-decay decay-method",
    "--steps": "max-steps num-steps train-steps training-steps iterations iters max-iters "
    "max-update max-updates total-num-update num-updates",
    "--steps N: the log says how many steps an epoch has": "epoch epochs num-epochs n-epochs "
    "max-epoch max-epochs num-train-epochs train-epochs",
    "--batch-tokens N: a batch is bounded by tokens, not by sentences": "batch batch-size bs "
    "max-tokens max-sentences tokens-per-batch mini-batch per-device-train-batch-size minibatch",
    "--accumulate": "grad-accum gradient-accumulation gradient-accumulation-steps accum "
    "accum-steps accum-count update-freq optimizer-delay accumulate-grad-batches",
    "--gradient-checkpointing": "activation-checkpointing remat recompute checkpoint-activations "
    "recompute-layers recompute-grad",
    "--clip-norm": "clip grad-clip clip-grad gradient-clipping max-grad-norm clip-grad-norm "
    "gradient-clip-val clip-gradient",
    "--weight-decay": "wd decay l2",
    "--adam-beta1": "beta1 beta-1 adam-b1",
    "--adam-beta2": "beta2 beta-2 adam-b2",
    "--adam-eps": "eps epsilon adam-epsilon optimizer-eps",
    "--adam-beta1 X --adam-beta2 X --adam-eps X: the optimizer is AdamW": "optim optimizer "
    "optimiser adam adamw betas adam-betas",
    "--label-smoothing": "smoothing label-smooth label-smoothing-eps label-smoothing-factor ls",
    "--ema-decay": "ema exponential-smoothing ema-rate polyak",
    "--average": "average-checkpoints checkpoint-averaging swa average-last",
    "--patience": "early-stop early-stopping early-stopping-patience es-patience",
    "--hidden-dim": "d-model model-dim dim hidden-size hidden emb-dim embed-dim embedding-dim "
    "emb-size embedding-size dim-emb rnn-size width word-vec-size encoder-embed-dim",
    "--inner-dim": "d-ff dff ff-dim ff-size ffn-dim ffn-size ffn-hidden-dim feedforward-dim "
    "dim-feedforward feed-forward-dim intermediate-size filter-size mlp-dim transformer-ff "
    "transformer-dim-ffn encoder-ffn-embed-dim ffn-embed-dim",
    "--num-heads": "heads head n-head n-heads nhead nheads num-attention-heads "
    "attention-heads transformer-heads encoder-attention-heads encoder-heads",
    "--num-encoder-layers N --num-decoder-layers N": "layers layer n-layers n-layer num-layers "
    "num-hidden-layers depth",
    "--num-encoder-layers": "enc-layers encoder-layers n-encoder-layers enc-depth encoder-depth",
    "--num-decoder-layers": "dec-layers decoder-layers n-decoder-layers dec-depth decoder-depth",
    "--max-length": "max-len max-seq-len max-seq-length max-sequence-length seq-len seq-length "
    "sequence-length block-size context-length n-ctx max-position-embeddings max-positions "
    "max-source-positions max-target-positions max-new-tokens max-output-length",
    "--activation": "activation-fn activation-function act hidden-act act-fn",
    "--norm-position pre": "pre-norm prenorm norm-first encoder-normalize-before",
    "--norm-position post": "post-norm postnorm norm-last",
    "--norm-epsilon": "layer-norm-eps layernorm-epsilon norm-eps ln-eps layer-norm-epsilon",
    "--dropout": "drop p-drop dropout-rate dropout-prob resid-dropout hidden-dropout-prob",
    "--attention-dropout": "attn-dropout attention-probs-dropout-prob dropout-attention",
    "--activation-dropout": "relu-dropout ffn-dropout act-dropout",
    "--tied-embeddings": "tie-embeddings tie-weights tie-word-embeddings share-embeddings "
    "weight-tying tied-weights share-all-embeddings share-decoder-input-output-embed",
    "--shared-vocabulary": "shared-vocab share-vocab joint-vocab joined-dictionary "
    "joint-dictionary share-vocabulary",
    "--source-vocab-size N --target-vocab-size N": "vocab-size vocabulary-size n-vocab dim-vocabs",
    "--source-vocab-size": "src-vocab-size src-vocab input-vocab-size nwordssrc",
    "--target-vocab-size": "tgt-vocab-size trg-vocab-size tgt-vocab output-vocab-size nwordstgt",
    "--source-vocabulary KIND --target-vocabulary KIND": "vocab vocabulary vocab-type tokenizer "
    "tokenizer-type tokenization",
    "--sentencepiece-algorithm bpe": "bpe use-bpe",
    "--bpe-dropout": "subword-dropout sentencepiece-alpha spm-dropout",
    "--data": "dataset train-data train-file train-path train-set train-sets trainpref corpus "
    "input input-file data-path data-dir",
    "--valid": "val dev validation valid-data val-data dev-data valid-sets validpref eval-data",
    "--test": "test-data test-file test-set testpref",
    "--source-lang": "src src-lang source source-language from-lang",
    "--target-lang": "tgt trg tgt-lang trg-lang target target-language to-lang",
    "--columns": "column fields text-columns src-column",
    "--evaluate-every": "eval-every eval-steps eval-interval eval-freq valid-every valid-freq "
    "valid-steps valid-interval validate-every validate-interval val-check-interval val-every",
    "--save-every": "save-steps save-interval save-freq save-checkpoint-steps checkpoint-every "
    "ckpt-every checkpoint-interval save-interval-updates",
    "--log-every": "log-steps log-interval log-freq logging-steps print-every report-every "
    "disp-freq",
    "--keep": "keep-last keep-checkpoints keep-checkpoint keep-last-epochs save-total-limit",
    "--seed": "random-seed rng-seed manual-seed",
    "--dtype bfloat16": "bf16 fp16 half amp mixed-precision bfloat16 float16 autocast",
    "--dtype float64": "fp64 float64 double",
    "--dtype": "precision compute-dtype weight-dtype",
    "--device cpu": "cpu no-cuda no-gpu cpu-only use-cpu",
    "--device gpu": "gpu gpus cuda use-gpu use-cuda gpu-id n-gpu",
    "--device tpu": "tpu tpus use-tpu",
    "--backend torch": "torch pytorch",
    "--backend jax": "jax flax xla",
    "--backend": "framework engine library",
    "--recipe": "config config-file cfg conf yaml settings params hparams",
    "--preset": "arch architecture model-size",
    "--out": "output-dir out-dir save-dir model-dir output-path run-dir log-dir checkpoint-dir",
    "--name": "run-name experiment experiment-name exp-name exp",
    "--mesh data=N": "data-parallel data-parallel-size dp dp-size ddp ici-data-parallelism "
    "num-devices ngpus gpus-per-node distributed-data-parallel",
    "--mesh fsdp=N": "fully-sharded fsdp fsdp-size shard zero zero-stage ici-fsdp-parallelism "
    "use-sharded-state full-shard",
    "--mesh data=N,fsdp=M": "mesh-shape device-mesh parallelism hsdp strategy",
    "--num-processes N: torchrun says it by itself, with --distributed auto": "world-size nproc "
    "nproc-per-node num-nodes nnodes distributed-world-size n-processes",
    "--process-id N: torchrun says it by itself, with --distributed auto": "rank local-rank "
    "node-rank distributed-rank process-index",
    "--coordinator-address HOST:PORT": "dist-url master-addr master-address master-port "
    "init-method distributed-init-method rdzv-endpoint distributed-port coordinator",
    "--distributed auto|jax|torchrun|off": "dist dist-backend multi-node multihost use-mpi "
    "distributed-backend launcher",
    "--join-timeout": "ddp-timeout dist-timeout rdzv-timeout initialization-timeout",
    "--resume-or-start": "auto-resume requeue resume-if-exists",
    "--resume": "continue restore restore-file resume-from resume-from-checkpoint load-checkpoint",
    "--beam": "beam-size beam-width beams num-beams n-beams k",
    "--nbest": "n-best num-return-sequences num-hypotheses",
    "--length-penalty": "lenpen alpha normalize len-penalty",
    "--file": "input input-file src src-file source-file",
    "--output": "out output-file o",
    "--checkpoint": "ckpt step",
}


def meant(given: str, allowed: Iterable[str]) -> str:
    """What is meant by a name that is not allowed: ``; here it is X``, ``; did you mean X?`` or "".

    Names are flags, or settings with underscores; X has the form of ``given``.
    """
    names = list(allowed)
    plain = given.strip("-").replace("_", "-").lower()
    flags = {"--" + name.strip("-").replace("_", "-") for name in names}
    for here, elsewhere in USUAL_NAMES.items():
        needed = re.findall(r"--[a-z0-9-]+", here)
        if plain in elsewhere.split() and flags.issuperset(needed):
            return f"; here it is {here if given.startswith('-') else _as_setting(here)}"
    return closest(given, names)


def _as_setting(text: str) -> str:
    """A text on flags, as it reads where settings are named."""
    return re.sub(r"--([a-z0-9-]+)", lambda flag: flag[1].replace("-", "_"), text)
