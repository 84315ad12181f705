"""Models with every number random, as sides of a comparison and as folders."""

from dataclasses import replace

import numpy as np

from convert.core.tensors import Held
from convert.formats.safetensors import write_safetensors
from parity.__main__ import main
from parity.comparison.comparison import compare
from parity.comparison.report import Agreement, Report, Row, SideSummary
from parity.comparison.settings import Settings
from parity.sides.side import Side, Trace
from parity.sides.twins import FlaxTwin, TorchTwin
from transformer_spec import TransformerConfig, initial_weights

TINY = TransformerConfig(
    source_vocab_size=17, target_vocab_size=19, hidden_dim=12, inner_dim=7, num_heads=3,
    num_encoder_layers=1, num_decoder_layers=2, max_length=9, pad_id=1, bos_id=0,
)  # fmt: skip
PRE = replace(
    TINY, norm_position="pre", final_norm=True, embedding_norm=True, encoder_positions="learned",
    decoder_positions="learned", activation="gelu",
)  # fmt: skip
WHISPER = TransformerConfig(
    source_vocab_size=0, target_vocab_size=19, hidden_dim=12, inner_dim=7, num_heads=3,
    num_encoder_layers=1, num_decoder_layers=2, max_length=9, norm_position="pre",
    activation="gelu", encoder_positions="frozen", decoder_positions="learned",
    sinusoid_layout="concatenated", sinusoid_frequency="i/(d/2-1)", embedding_scale=1.0,
    key_bias=False, tied_embeddings="target_output", output_bias="none", feature_dim=5,
    max_source_length=11, pad_id=1, bos_id=0,
)  # fmt: skip


def random_weights(config: TransformerConfig, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    first = initial_weights(config, seed, np.float64)
    return {name: array + draw.normal(0, 0.3, array.shape) for name, array in first.items()}


def torch_side(config: TransformerConfig, weights: dict | None = None, given: str = "a") -> Side:
    return TorchTwin(given, "the torch twin", "torch", config, weights or random_weights(config))


def flax_side(config: TransformerConfig, weights: dict | None = None, given: str = "b") -> Side:
    return FlaxTwin(given, "the jax twin", "jax", config, weights or random_weights(config))


class Known(Side):
    """A side whose traces are known and whose weights nobody can see."""

    traces: list[Trace]

    def trace(self, ids, precision: str) -> Trace:
        return self.traces.pop(0)


def write(folder, config, weights):
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", Held(weights))
    config.save(folder / "config.json")
    return folder


def failed(capsys, *arguments) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err


def assert_order_does_not_matter(a, b):
    """Of the formats in which both compute: each finds the models as they were opened."""
    orders = ("float32", "bfloat16"), ("bfloat16", "float32")
    reports = [compare(a, b, Settings(order, gradients=False, longest=5)) for order in orders]
    assert reports[0].budget == reports[1].budget
    assert reports[0].budget["float32"].a.max_abs < 1e-4


MEASURED = Agreement(5e-6, 1e-6, 1e-11, 1e-12, 1.0, 0.99)


def report_with(rows: list[Row], **fields) -> Report:
    """A report of these rows; ``fields`` replace the others."""
    given = {
        "a": SideSummary("a", "Marian", "torch", "cpu"),
        "b": SideSummary("elsewhere/b", "twinformer", "jax", "cpu"),
        "settings": Settings(seed=7), "batches": (((6, 5), (6, 2)),), "config": {"hidden_dim": 15},
        "different_settings": {}, "notes": (), "agreement": MEASURED, "budget": {},
    }  # fmt: skip
    return Report(rows=tuple(rows), **given | fields)
