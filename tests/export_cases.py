"""python tests/export_cases.py: models compiled and exported by PyTorch, beside themselves.

Prints JSON: of each form and way the largest difference of logits, or what went wrong. A process of
its own, as PyTorch cannot trace the checks of types that tests have.
"""

import itertools
import json

import numpy as np
import torch
from torch.export import Dim, export

import torch_transformer
from transformer_spec import TransformerConfig

SIZE = {
    "source_vocab_size": 50, "target_vocab_size": 50, "hidden_dim": 16, "inner_dim": 32,
    "num_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 1, "max_length": 20,
}  # fmt: skip
FORMS = {
    "sinusoids": {},
    "sinusoids of two halves": {"sinusoid_layout": "concatenated", "positions_skip_padding": True},
    "learned": {"encoder_positions": "learned", "decoder_positions": "learned"},
    "relative": {"encoder_positions": "relative", "decoder_positions": "relative", "norm": "rms"},
    "features": {
        "feature_dim": 6,
        "encoder_positions": "frozen",
        "max_source_length": 20,
        "source_vocab_size": 0,
    },  # fmt: skip
}
SIZES = (2, 7, 5), (3, 9, 11), (5, 20, 20)  # rows, source, target


def model_of(form):
    return torch_transformer.Transformer(
        TransformerConfig(**SIZE | FORMS[form]), dtype=torch.float64
    )


def arrays_of(model, rows, source, target):
    draw = torch.Generator().manual_seed(rows)
    targets = torch.randint(4, 50, (rows, target), generator=draw)
    if model.config.feature_dim:
        heard = torch.rand(rows, 2 * source, model.config.feature_dim, generator=draw)
        return heard.double(), targets
    sources = torch.randint(4, 50, (rows, source), generator=draw)
    sources[0, source // 2 :] = model.config.pad_id
    return sources, targets


def exported(model, strict):
    """One program for all numbers of rows and lengths."""
    rows, target, step = Dim("rows", max=99), Dim("target", max=20), Dim("source", max=20)
    source = 2 * step if model.config.feature_dim else step
    shapes = ({0: rows, 1: source}, {0: rows, 1: target})
    arrays = arrays_of(model, *SIZES[0])
    return export(model, arrays, dynamic_shapes=shapes, strict=strict).module()


WAYS = {
    "export": lambda model: exported(model, strict=False),
    "strict export": lambda model: exported(model, strict=True),
    "compile": lambda model: torch.compile(model, fullgraph=True, backend="aot_eager"),
}


@torch.no_grad()
def largest_difference(form, way):
    model = model_of(form)
    program, differences = WAYS[way](model), []
    for sizes in SIZES:
        arrays = arrays_of(model, *sizes)
        differences.append(float((program(*arrays) - model(*arrays)).abs().max()))
    return float(np.max(differences))  # NaN where one is


def outcome(form, way):
    try:
        return largest_difference(form, way)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:2000]


if __name__ == "__main__":
    print(json.dumps([[f, w, outcome(f, w)] for f, w in itertools.product(FORMS, WAYS)]))
