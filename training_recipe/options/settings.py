"""Every setting of a training run, once: type, default, meaning, allowed values."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from training_recipe.corpora.named import CMUDICT, NAMED_CORPORA
from training_recipe.options.schedule import SCHEDULES
from training_recipe.options.usual_names import meant
from training_recipe.text.vocabulary import (
    DEFAULT_SENTENCEPIECE_SIZE,
    SENTENCEPIECE_ALGORITHMS,
    VOCABULARY_KINDS,
)
from transformer_spec.declarations import Declaration, declarations, in_group, settle
from transformer_spec.errors import Faults

MOST_TOKENS = 2**28
USUAL_SIZE = f"none: all, {DEFAULT_SENTENCEPIECE_SIZE} for sentencepiece"
in_data, in_model = in_group("data"), in_group("model")
in_optimisation = in_group("optimisation")
in_evaluation, in_run = in_group("evaluation"), in_group("run")


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained; a fault in any value is a UserError that names them all."""

    data: str = in_data(
        f"cmudict (built in), {', '.join(NAMED_CORPORA)} (downloaded once), the PREFIX of "
        "parallel files, or a .tsv or .csv file",
        CMUDICT,
        resumable=True,
    )
    source_lang: str | None = in_data("source is read from PREFIX.SOURCE_LANG", None)
    target_lang: str | None = in_data("target is read from PREFIX.TARGET_LANG", None)
    columns: tuple[str, ...] | None = in_data(
        "source and target column of a table, by name or number, as in Q,A", None
    )
    valid: str | None = in_data(
        "validation data, as --data; none: the data's own or a share", None, resumable=True
    )
    test: str | None = in_data(
        "test data, as --data; none: the data's own or a share", None, resumable=True
    )
    extra_data: tuple[str, ...] | None = in_data(
        "more pairs to train on, as --data, between commas; diversify.py makes such",
        None,
        resumable=True,
    )
    languages: tuple[str, ...] | None = in_data(
        "with --init: source and target language, as in eng_Latn,deu_Latn, of a model that has "
        "several; none: those that it says itself",
        None,
    )
    source_vocabulary: str | None = in_data(
        "what a source token is; none: characters for cmudict, sentencepiece for other data",
        None,
        choices=VOCABULARY_KINDS,
    )
    target_vocabulary: str | None = in_data(
        "what a target token is; none: whitespace for cmudict, sentencepiece for other data",
        None,
        choices=VOCABULARY_KINDS,
    )
    source_vocab_size: int | None = in_data(
        f"source tokens: most kept, exact for sentencepiece; {USUAL_SIZE}", None, least=5
    )
    target_vocab_size: int | None = in_data(
        f"target tokens: most kept, exact for sentencepiece; {USUAL_SIZE}", None, least=5
    )
    shared_vocabulary: bool = in_data("one vocabulary for both sides", False)
    sentencepiece_algorithm: str = in_data(
        "how sentencepiece finds its pieces", "unigram", choices=SENTENCEPIECE_ALGORITHMS
    )

    bpe_dropout: float = in_data(
        "cut the words anew in every epoch, each merge left out with this probability; 0: never",
        0.0,
        least=0,
        below=1,
    )

    init: str | None = in_model(
        "begin with the model of this folder: a run, a converted folder, or one that python -m "
        "convert reads; weights, config, vocabularies and search come with it",
        None,
    )

    steps: int = in_optimisation("optimizer steps in all", 3000, least=1, resumable=True)
    batch_tokens: int = in_optimisation(
        "most tokens of a batch on its longer side, padding counted; a batch is that of all "
        "devices together, however many there are",
        4096,
        least=1,
        most=MOST_TOKENS,
    )
    batch_shapes: int = in_optimisation(
        "most different shapes of batches, each of which XLA compiles once", 12, least=1, most=1000
    )
    accumulate: int = in_optimisation(
        "batches of an optimizer step; its gradient is the mean over all their tokens",
        1,
        least=1,
        most=100_000,
    )
    peak_lr: float = in_optimisation("highest learning rate", 2e-3, above=0)
    warmup_steps: int = in_optimisation("steps until the highest learning rate", 400, least=0)
    schedule: str = in_optimisation(
        "course of the learning rate after warm-up", "inverse_sqrt", choices=tuple(SCHEDULES)
    )
    init_gain: float = in_optimisation(
        "factor on the first weights of fcV, fcOut and the feed-forward; 0.5 keeps the encoder's "
        "positions apart where post-norm meets high learning rates",
        1.0,
        above=0,
    )
    label_smoothing: float = in_optimisation(
        "probability spread evenly over the vocabulary", 0.1, least=0, below=1
    )
    padding_gradient: bool = in_optimisation(
        "the padding token's embedding learns from the decoder's start where they are one token; "
        "with --init: as in the model's own library",
        True,
    )
    clip_norm: float = in_optimisation(
        "largest global norm of the gradient; 0: no clipping", 1.0, least=0
    )
    weight_decay: float = in_optimisation(
        "decoupled weight decay of the matrices (AdamW)", 0.01, least=0
    )
    adam_beta1: float = in_optimisation("decay of the first moment", 0.9, least=0, below=1)
    adam_beta2: float = in_optimisation("decay of the second moment", 0.98, least=0, below=1)
    adam_eps: float = in_optimisation("added to the root of the second moment", 1e-9, above=0)
    ema_decay: float = in_optimisation(
        "decay of the moving average of the weights, by which the model is validated, tested and "
        "used; 0: the weights themselves",
        0.0,
        least=0,
        below=1,
    )
    gradient_checkpointing: bool = in_optimisation(
        "keep of each layer its input alone and compute it again for the gradient: less memory, a "
        "third more work; also called activation checkpointing or remat",
        False,
        resumable=True,
    )
    dropout_rng: str = in_optimisation(
        "masks of dropout; portable: the same in both frameworks, native: the framework's own",
        "portable",
        choices=("portable", "native"),
    )

    evaluate_every: int = in_evaluation("steps between validations", 500, least=1, resumable=True)
    valid_examples: int = in_evaluation(
        "validation examples that are decoded and scored; 0: judge by the loss alone",
        500,
        least=0,
        resumable=True,
    )
    patience: int = in_evaluation(
        "validations in a row without improvement after which training stops; 0: never",
        0,
        least=0,
        resumable=True,
    )
    average: int = in_evaluation(
        "test and use the mean of this many last checkpoints; 0: the best checkpoint",
        0,
        least=0,
        resumable=True,
    )
    test_examples: int | None = in_evaluation(
        "test examples scored at the end; none: all", None, least=0, resumable=True
    )
    bleu_tokenize: str = in_evaluation(
        "tokenization for BLEU, a name that sacrebleu knows", "13a", resumable=True
    )
    samples: int = in_evaluation(
        "outputs shown beside their references", 3, least=0, resumable=True
    )
    beam: int = in_evaluation(
        "beam of the final test; validation is greedy", 1, least=1, resumable=True
    )
    length_penalty: float = in_evaluation(
        "exponent of the length that divides a beam's score", 1.0, resumable=True
    )

    seed: int = in_run("of weights, batch order and dropout", 1, least=0, most=2**63 - 1)
    dtype: str = in_run(
        "number format of weights and arithmetic; bfloat16: of matrix products in training alone",
        "float32",
        choices=("float32", "float64", "bfloat16"),
    )
    device: str = in_run(
        "where to compute; auto: an accelerator if there is one",
        "auto",
        choices=("auto", "cpu", "gpu", "tpu"),
        resumable=True,
    )
    log_every: int = in_run("steps between log lines", 50, least=1, resumable=True)
    save_every: int = in_run("steps between checkpoints", 500, least=1, resumable=True)
    save_minutes: float = in_run(
        "a checkpoint is saved as well where the last one is so many minutes old; 0: never",
        10.0,
        least=0,
        resumable=True,
    )
    keep: int = in_run(
        "newest checkpoints kept, beside the best and those of --average",
        2,
        least=1,
        resumable=True,
    )

    def __post_init__(self) -> None:
        faults = Faults()
        if settle(self, SETTINGS, faults):
            for fault in combination_faults(dataclasses.asdict(self)):
                faults.add(fault)
        faults.raise_if_any("invalid training settings")

    def to_dict(self) -> dict[str, Any]:
        """Every setting, in plain JSON types."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingSettings:
        """The settings of a mapping; unknown keys are all named in one UserError."""
        faults = Faults()
        for name in values.keys() - SETTINGS.keys():
            faults.add(f"unknown setting {name!r}{meant(name, SETTINGS)}")
        faults.raise_if_any("invalid training settings")
        return cls(**values)

    @property
    def weight_dtype(self) -> str:
        """The number format of weights, moments and checkpoints."""
        return "float32" if self.dtype == "bfloat16" else self.dtype

    def anchored(self) -> TrainingSettings:
        """The same with absolute paths of files, which are found from every folder.

        What is to begin with may be no path, and stays as it is where there is no such file.
        """

        def absolute(file: str | None) -> str | None:
            return file and str(Path(file).absolute())

        return dataclasses.replace(
            self,
            data=self.data if self.data in (CMUDICT, *NAMED_CORPORA) else absolute(self.data),
            valid=absolute(self.valid),
            test=absolute(self.test),
            extra_data=self.extra_data and tuple(map(absolute, self.extra_data)),
            init=absolute(self.init) if self.init and Path(self.init).exists() else self.init,
        )

    def vocabulary_kinds(self) -> tuple[str, str]:
        """The kinds of the source's and the target's vocabulary, defaults resolved."""
        return resolved_kinds(dataclasses.asdict(self))


SETTINGS: dict[str, Declaration] = declarations(TrainingSettings)


def resolved_kinds(values: dict[str, Any]) -> tuple[str, str]:
    """The kinds of the two vocabularies, those not chosen being the data's usual ones."""
    usual = ("characters", "whitespace") if values["data"] == CMUDICT else ("sentencepiece",) * 2
    return values["source_vocabulary"] or usual[0], values["target_vocabulary"] or usual[1]


def combination_faults(values: dict[str, Any]) -> list[str]:
    """Values that are fine alone and wrong together."""
    faults = _vocabulary_faults(values) if values["init"] is None else []
    faults += _language_faults(values["languages"], values["init"])
    if values["columns"] is not None and len(values["columns"]) != 2:
        given = ",".join(values["columns"])
        faults.append(f"columns: {given!r} must name two columns, source and target")
    return faults + _averaging_faults(values["average"], values["steps"], values["save_every"])


def _vocabulary_faults(values: dict[str, Any]) -> list[str]:
    """Those of vocabularies that are to be built."""
    faults, kinds = list[str](), resolved_kinds(values)
    sizes = values["source_vocab_size"], values["target_vocab_size"]
    if values["shared_vocabulary"] and kinds[0] != kinds[1]:
        both = " and ".join(kinds)
        faults.append(f"shared_vocabulary needs one kind of vocabulary, not {both}")
    if values["shared_vocabulary"] and None not in sizes and sizes[0] != sizes[1]:
        faults.append(f"shared_vocabulary has one size, not {sizes[0]} and {sizes[1]}")
    if values["bpe_dropout"] and "sentencepiece" not in kinds:
        faults.append(f"bpe_dropout needs sentencepiece, not {' and '.join(kinds)}")
    elif "sentencepiece" not in kinds and values["sentencepiece_algorithm"] == "bpe":
        both = " and ".join(kinds)
        faults.append(f"sentencepiece_algorithm bpe needs sentencepiece, not {both}")
    elif values["bpe_dropout"] and values["sentencepiece_algorithm"] != "bpe":
        given = values["sentencepiece_algorithm"]
        faults.append(f"bpe_dropout needs sentencepiece_algorithm bpe, not {given}")
    return faults


def _language_faults(languages: tuple[str, ...] | None, init: str | None) -> list[str]:
    if languages is None:
        return []
    if init is None:
        return ["languages are those of a model that has several, which --init begins with"]
    given = ",".join(languages)
    wrong = len(languages) > 2 or not all(languages)
    return [f"languages: {given!r} must name source and target"] if wrong else []


def _averaging_faults(wanted: int, steps: int, every: int) -> list[str]:
    if every < 1:
        return []  # named already
    made = -(-steps // every)
    if wanted <= made:
        return []
    return [
        f"average {wanted} needs as many checkpoints, and {steps} steps saved every {every} make "
        f"{made}; lower save_every"
    ]
