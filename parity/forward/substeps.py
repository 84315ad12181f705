"""The sub-steps of a forward pass in the order in which they happen, bottom up.

A sub-step is named after the module that makes it, as its weights are; ``X input`` is what module X
is given where no module makes that: attention's context, what activation and gate make, a residual
sum.
"""

from __future__ import annotations

from transformer_spec import TransformerConfig

LOGITS = "decoder.finalFc"
EMBED = "embed"
# Of a source of features: before and after the first GELU, and before the second.
OVER_FRAMES = ("encoder.conv1", "encoder.conv2 input")
CONVOLUTIONS = (*OVER_FRAMES, "encoder.conv2")
ATTENTION = ("fcQ", "fcK", "fcV", "fcOut input", "fcOut")
FEED_FORWARD = ("fc1", "fc3", "fc2 input", "fc2")
SUB_LAYERS = {
    "encoder.enc_layers": (("multiheadattention", ATTENTION), ("ffn", FEED_FORWARD)),
    "decoder.dec_layers": (
        ("multiheadattention1", ATTENTION),
        ("multiheadattention2", ATTENTION),
        ("ffn", FEED_FORWARD),
    ),
}


def substeps(config: TransformerConfig) -> list[str]:
    """Every sub-step of a config, logits last."""
    steps = []
    for half, layers, count in (
        ("encoder", "encoder.enc_layers", config.num_encoder_layers),
        ("decoder", "decoder.dec_layers", config.num_decoder_layers),
    ):
        steps += CONVOLUTIONS if config.feature_dim and half == "encoder" else ()
        if config.embedding_norm:
            steps += [f"{half}.embedding_norm input", f"{half}.embedding_norm"]
        steps.append(f"{half}.{EMBED}")
        for number in range(count):
            steps += _layer(f"{layers}.{number}", SUB_LAYERS[layers], config)
        if config.final_norm:
            steps += [f"{half}.final_norm input", f"{half}.final_norm"]
    return [*steps, LOGITS]


def _layer(layer: str, sub_layers: tuple, config: TransformerConfig) -> list[str]:
    steps, absent = [], () if config.gated_ffn else ("fc3",)
    for number, (part, inside) in enumerate(sub_layers, 1):
        norm = [f"{layer}.layerNorm{number} input", f"{layer}.layerNorm{number}"]
        inner = [f"{layer}.{part}.{step}" for step in inside if step not in absent]
        steps += [*norm, *inner] if config.norm_position == "pre" else [*inner, *norm]
    return steps


def over_source(step: str) -> bool:
    """Whether a sub-step's rows are source tokens or frames; the others' are target tokens."""
    return step.startswith("encoder.") or step.endswith(
        ("multiheadattention2.fcK", "multiheadattention2.fcV")
    )


def is_step(part: str) -> bool:
    """Whether a row of a report is of the forward pass, and not the loss or a gradient."""
    return part.startswith(("encoder.", "decoder."))


def in_words(step: str) -> str:
    """A sub-step for readers: ``encoder layer 2, attention context``."""
    half, _, rest = step.partition(".")
    if step == LOGITS:
        return "logits"
    layers, _, inside = rest.partition(".")
    if layers not in ("enc_layers", "dec_layers"):
        return f"{half} {rest.replace('_', ' ')}"
    number, _, inside = inside.partition(".")
    return f"{half} layer {int(number) + 1}, {inside}"
