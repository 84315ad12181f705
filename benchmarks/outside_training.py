"""How others train the model of benchmarks/train.py.

Each is trained as its own documentation does it: eager, all logits at once, its usual loss and
Adam. Sizes, tied tables, dropout rate and batches are those of the config.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from training_recipe.batching.batches import Batch
from transformer_spec import TransformerConfig

Step = Callable[[Batch], object]
LEARNING_RATE = 1e-4


def torch_threads(threads: int) -> str:
    """Have PyTorch use so many threads; its version."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    return f"torch {torch.__version__}"


def tensors(batch: Batch) -> tuple[Any, Any, Any]:
    import torch

    arrays = batch.source, batch.target_in, batch.target_out
    source, target_in, target_out = (torch.from_numpy(np.asarray(a, np.int64)) for a in arrays)
    return source, target_in, target_out


def trained(model: Any, loss_of: Callable, optimizer: str) -> Step:
    """The usual loop: zero, forward, backward, step."""
    import torch

    kind = getattr(torch.optim, optimizer)
    made = kind(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), eps=1e-9)

    def step(batch: Batch) -> object:
        made.zero_grad()
        loss = loss_of(*tensors(batch))
        loss.backward()
        made.step()
        return loss.detach()

    return step


def torch_nn(config: TransformerConfig, dropout_rng: str, threads: int) -> tuple[str, Step]:
    """PyTorch's tutorial "Language Translation with nn.Transformer", with tied tables."""
    version = torch_threads(threads)
    import torch
    from torch import nn

    D, V, pad = config.hidden_dim, config.target_vocab_size, config.pad_id
    core = nn.Transformer(
        D, config.num_heads, config.num_encoder_layers, config.num_decoder_layers,
        config.inner_dim, config.dropout, batch_first=True,
    )  # fmt: skip
    table, generator, dropout = nn.Embedding(V, D), nn.Linear(D, V), nn.Dropout(config.dropout)
    generator.weight, positions = table.weight, torch.zeros(config.max_length, D)
    angles = torch.exp(torch.arange(0, D, 2) * (-np.log(10_000) / D))
    angles = torch.arange(config.max_length)[:, None] * angles
    positions[:, 0::2], positions[:, 1::2] = angles.sin(), angles.cos()
    criterion = nn.CrossEntropyLoss(ignore_index=pad)

    def embed(tokens: Any) -> Any:
        return dropout(table(tokens) * D**0.5 + positions[: tokens.shape[1]])

    def loss_of(source: Any, target_in: Any, target_out: Any) -> Any:
        T, padding = target_in.shape[1], source == pad
        ahead = torch.triu(torch.ones(T, T, dtype=torch.bool), 1)
        states = core(
            embed(source), embed(target_in), None, ahead, None, padding, target_in == pad, padding
        )
        return criterion(generator(states).reshape(-1, V), target_out.reshape(-1))

    model = nn.ModuleList([core, table, generator])
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
    return version, trained(model, loss_of, "Adam")


def marian(
    config: TransformerConfig, dropout_rng: str, threads: int, dtype: str = "float32"
) -> tuple[str, Step]:
    """transformers' own training loop: labels in, loss out, AdamW; fresh weights."""
    torch_threads(threads)
    import torch
    import transformers

    V, pad = config.target_vocab_size, config.pad_id
    model = transformers.MarianMTModel(transformers.MarianConfig(
        vocab_size=V, d_model=config.hidden_dim, dropout=config.dropout,
        encoder_layers=config.num_encoder_layers, decoder_layers=config.num_decoder_layers,
        encoder_ffn_dim=config.inner_dim, decoder_ffn_dim=config.inner_dim,
        encoder_attention_heads=config.num_heads, decoder_attention_heads=config.num_heads,
        max_position_embeddings=config.max_length, activation_function="relu", scale_embedding=True,
        pad_token_id=pad, eos_token_id=config.eos_id, forced_eos_token_id=None,
        decoder_start_token_id=config.decoder_start_id,
    ))  # fmt: skip
    model.train()

    def loss_of(source: Any, target_in: Any, target_out: Any) -> Any:
        labels = target_out.masked_fill(target_out == pad, -100)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            return model(
                input_ids=source, attention_mask=source != pad, decoder_input_ids=target_in,
                decoder_attention_mask=target_in != pad, labels=labels, use_cache=False,
            ).loss  # fmt: skip

    return f"transformers {transformers.__version__}", trained(model, loss_of, "AdamW")


def t5(
    config: TransformerConfig, dropout_rng: str, threads: int, dtype: str = "float32"
) -> tuple[str, Step]:
    """transformers' own training loop with its T5; fresh weights."""
    torch_threads(threads)
    import torch
    import transformers

    settings: Any = transformers.T5Config(
        vocab_size=config.target_vocab_size, d_model=config.hidden_dim, d_kv=config.head_dim,
        d_ff=config.inner_dim, num_layers=config.num_encoder_layers,
        num_decoder_layers=config.num_decoder_layers, num_heads=config.num_heads,
        dropout_rate=config.dropout, feed_forward_proj=config.activation,
        pad_token_id=config.pad_id, eos_token_id=config.eos_id,
    )  # fmt: skip
    settings.decoder_start_token_id = config.decoder_start_id
    model = transformers.T5ForConditionalGeneration(settings)
    model.train()

    def loss_of(source: Any, target_in: Any, target_out: Any) -> Any:
        labels = target_out.masked_fill(target_out == config.pad_id, -100)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            return model(
                input_ids=source, attention_mask=source != config.pad_id,
                decoder_input_ids=target_in, labels=labels, use_cache=False,
            ).loss  # fmt: skip

    return f"transformers {transformers.__version__}", trained(model, loss_of, "AdamW")


def x_transformers(config: TransformerConfig, dropout_rng: str, threads: int) -> tuple[str, Step]:
    """XTransformer as its README trains it; the target begins with its start token."""
    torch_threads(threads)
    from importlib.metadata import version

    import torch
    from x_transformers import XTransformer

    half: dict[str, Any] = {
        "num_tokens": config.target_vocab_size, "max_seq_len": config.max_length + 1,
        "heads": config.num_heads, "attn_dim_head": config.head_dim, "attn_flash": True,
        "ff_mult": config.inner_dim // config.hidden_dim, "pre_norm": False,
        "ff_dropout": config.dropout, "emb_dropout": config.dropout,
    }  # fmt: skip
    sides = {f"enc_{name}": value for name, value in half.items()}
    sides |= {f"dec_{name}": value for name, value in half.items()}
    model = XTransformer(
        dim=config.hidden_dim, enc_depth=config.num_encoder_layers, tie_token_emb=True,
        dec_depth=config.num_decoder_layers, ignore_index=config.pad_id, **sides,
    )  # fmt: skip
    decoder: Any = model.decoder.net
    decoder.to_logits.weight = decoder.token_emb.emb.weight

    def loss_of(source: Any, target_in: Any, target_out: Any) -> Any:
        whole = torch.cat([target_in[:, :1], target_out], 1)
        return model(source, whole, mask=source != config.pad_id)

    return f"x-transformers {version('x-transformers')}", trained(model, loss_of, "Adam")


def joeynmt(config: TransformerConfig, dropout_rng: str, threads: int) -> tuple[str, Step]:
    """JoeyNMT's model and loss, as its TrainManager calls them."""
    torch_threads(threads)
    import joeynmt  # pyright: ignore[reportMissingImports]
    import torch
    from joeynmt.model import build_model  # pyright: ignore[reportMissingImports]

    vocabulary = _JoeyVocabulary(config)
    half = {
        "type": "transformer", "num_layers": config.num_encoder_layers,
        "num_heads": config.num_heads, "hidden_size": config.hidden_dim,
        "ff_size": config.inner_dim, "dropout": config.dropout, "layer_norm": "post",
        "embeddings": {"embedding_dim": config.hidden_dim, "scale": True},
    }  # fmt: skip
    tied = {"tied_embeddings": True, "tied_softmax": True}
    model: Any = build_model({"encoder": half, "decoder": half} | tied, vocabulary, vocabulary)
    model.loss_function = ("crossentropy", 0.1)
    model.train()

    def loss_of(source: Any, target_in: Any, target_out: Any) -> Any:
        real = target_out != config.pad_id
        batch = model(
            return_type="loss", src=source, trg_input=target_in, trg=target_out,
            src_mask=(source != config.pad_id)[:, None], src_length=(source > 0).sum(1),
            trg_mask=real[:, None],
        )  # fmt: skip
        return batch[0] / torch.sum(real)

    return f"joeynmt {joeynmt.__version__}", trained(model, loss_of, "Adam")


class _JoeyVocabulary(SimpleNamespace):
    """As much of JoeyNMT's vocabulary as its model asks for."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(
            pad_index=config.pad_id, bos_index=config.bos_id, eos_index=config.eos_id,
            unk_index=config.unk_id, sep_index=None, specials=[], lang_tags=[],
            size=config.target_vocab_size,
        )  # fmt: skip

    def __len__(self) -> int:
        return self.size
