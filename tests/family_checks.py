"""What every foreign family must show: equal logits in both twins, the way back byte by byte."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import torch
from family_table import assert_measured, max_difference

import flax_transformer
import torch_transformer
from convert import torch_to_flax
from convert.core.pipeline import Converted, check_source
from convert.core.rules import ASIDE, reverse
from convert.core.tensors import Held
from convert.families.base import Family, Source
from transformer_spec import Faults, TransformerConfig, weight_shapes

Weights = dict[str, np.ndarray]


def source_of(state: dict, settings=None, flags=None, wrapper=None) -> Source:
    """A source in memory; ``state`` holds torch tensors or arrays."""
    arrays = {name: np.asarray(value.detach() if hasattr(value, "detach") else value)
              for name, value in state.items()}  # fmt: skip
    return Source(Held(arrays), settings, flags or {}, wrapper or {})


def import_source(family: Family, source: Source) -> tuple[TransformerConfig, Weights]:
    """Config and canonical arrays (``aside/`` included); what has no rule is an error."""
    config = family.read_config(source).config
    rules = family.rules(config, source)
    faults = Faults()
    check_source(source.tensors, rules, weight_shapes(config), faults)
    faults.raise_if_any(f"{family.name} source")
    return config, Converted(source.tensors, rules).read_all()


def export_source(
    family: Family, config: TransformerConfig, canonical: Weights, like: Source | None = None
) -> Weights:
    """The family's arrays; under the names of ``like``, or those that its library would save."""
    rules = reverse(family.rules(config, like or family.written(config)))
    return Converted(Held(canonical), rules).read_all()


def twin_logits(
    config: TransformerConfig, canonical: Weights, source_ids: np.ndarray, target_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(torch, jax) logits (B, T, V) in float64; needs the fixture ``float64``."""
    weights = {n: a.astype(np.float64) for n, a in canonical.items() if not n.startswith(ASIDE)}
    ours = torch_transformer.Transformer(config, dtype=torch.float64)
    torch_transformer.load_weights(ours, weights)
    theirs = flax_transformer.Transformer(config, 0, jnp.float64)
    flax_transformer.load_weights(theirs, torch_to_flax(weights))
    with torch.no_grad():
        one = ours(torch.from_numpy(source_ids), torch.from_numpy(target_ids)).numpy()
    kind = jnp.float64 if config.feature_dim else jnp.int32
    other = theirs(jnp.asarray(source_ids, kind), jnp.asarray(target_ids, jnp.int32))
    return one, np.asarray(other)


def assert_same_logits(
    family: Family,
    config: TransformerConfig,
    canonical: Weights,
    source_ids: np.ndarray,
    target_ids: np.ndarray,
    expected: np.ndarray,
    direction: str = "in",
) -> float:
    """Both twins agree with ``expected`` (float64) wherever the target is no padding."""
    real = target_ids != config.pad_id
    assert expected.dtype == np.float64 and real.any() and np.abs(expected).max() > 1e-3
    logits = twin_logits(config, canonical, source_ids, target_ids)
    return assert_measured(family.name, direction, max_difference(logits, expected, real))


def assert_round_trip(family: Family, source: Source) -> None:
    """Import, then export: every tensor of the source again, byte by byte."""
    config, canonical = import_source(family, source)
    back = export_source(family, config, canonical, source)
    original = source.tensors.read_all()
    assert back.keys() == original.keys()
    for name, array in original.items():
        assert back[name].dtype == array.dtype and back[name].shape == array.shape, name
        assert back[name].tobytes() == array.tobytes(), name


def batch(config: TransformerConfig, seed: int = 0, B: int = 3, S: int = 9, T: int = 6):
    """(source, target) int64 ids, padded on the right, target != source length.

    Where the source is features, they are normal numbers in as many frames as the model takes.

    No padding id occurs inside; the target begins with decoder_start_id, which may be the padding
    id itself (Marian): compare positions after the first there as well as the first.
    """
    draw = np.random.default_rng(seed)

    def ids(rows: int, length: int, size: int) -> np.ndarray:
        found = draw.integers(0, size, (rows, length))
        found[found == config.pad_id] = (config.pad_id + 1) % size
        for row in range(1, rows):
            found[row, length - row :] = config.pad_id
        return found

    if config.feature_dim:
        source = draw.normal(size=(B, 2 * config.max_source_length, config.feature_dim))
    else:
        source = ids(B, S, config.source_vocab_size)
    target = ids(B, T, config.target_vocab_size)
    return source, target
