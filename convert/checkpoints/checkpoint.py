"""What is in a checkpoint folder, whichever backend wrote it: read, written and checked here only.

torch: model.safetensors, optimizer.safetensors (exp_avg/NAME, exp_avg_sq/NAME, metadata count);
jax: orbax/ (params under Flax names, and the opt_state of optax.adamw: count, mu, nu). Where the
model has moving averages of the weights, the weights that training goes on from are beside the
moments (raw/NAME; raw).
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from convert.checkpoints.content import Content
from convert.checkpoints.folders.config_files import no_config
from convert.checkpoints.folders.file_names import MODEL, OPTIMIZER, ORBAX_FOLDER
from convert.checkpoints.folders.location import locate
from convert.checkpoints.layouts import (
    BESIDE,
    COUNT,
    FIRST,
    ORBAX,
    RAW,
    SECOND,
    TORCH,
    Layout,
    canonical_rules,
    expected_shapes,
)
from convert.checkpoints.reading import open_content
from convert.checkpoints.records import write_record
from convert.checkpoints.saved import CheckpointTensors
from convert.core.ledger import Hashed
from convert.core.pipeline import EXTRA, SHAPE, Converted, check_source
from convert.core.rules import ASIDE, Rule, rename
from convert.core.tensors import Held, Joined, Subset, Tensors, as_parts
from convert.families.twinformer import rules_to_flax, torch_rule_of_flax
from convert.formats.orbax_writer import write_orbax
from convert.formats.safetensors import write_safetensors
from training_recipe.backend import Checkpoint
from training_recipe.files.writing import remove
from transformer_spec import Faults, TransformerConfig, UserError

OUTPUT_BIAS = "decoder.finalFc.bias"
FROZEN_BIAS = (
    "this bias is never trained, and nnx.state(model, nnx.Param) leaves it out: save "
    "nnx.state(model), or, where all of it is zero, write output_bias 'none' in its config.json or "
    "give --output-bias none in place of one"
)
ADVICE = {
    EXTRA: "--drop NAME leaves one out, --drop 'PATTERN*' all of a pattern",
    SHAPE: "where the tensors are right, write their sizes in the config: it may be older than a "
    "change of the vocabulary",
}
LONGEST_BEGINNING = 3  # parts of what names may begin with
FORMATS = {"torch": {"format": "pt"}, "flax": {"format": "flax"}}


def read_checkpoint(folder: Path, verify: bool = True) -> Checkpoint:
    """The checkpoint of either backend; a missing, truncated or damaged file is a UserError.

    Its arrays are ``Parts``: each is read from its file when it is asked for, and what is wrong
    with its numbers is a UserError then. Without ``verify`` tensors are not compared with what was
    written of them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no checkpoint folder")
    content = open_content(folder, verify=verify)
    if content.count is None:
        missing = folder / (ORBAX_FOLDER if content.container == "orbax" else OPTIMIZER)
        raise UserError(f"{folder} has no optimizer state: {missing} is missing or lacks it")
    canonical = _by_name(content)
    weights = as_parts(Subset(canonical, [n for n in canonical if not n.startswith(BESIDE)]))
    first, second, raw = (as_parts(canonical, prefix) for prefix in (FIRST, SECOND, RAW))
    return Checkpoint(weights, first, second, content.count, raw, str(folder))


def _by_name(content: Content) -> Tensors:
    """Canonical tensors with no config at hand: each name says by itself what it becomes."""
    rules, faults = [], Faults()
    for name in content.kept:
        try:
            rules.append(_rule_by_name(name, content.layout))
        except UserError as error:
            faults.take(error)
    faults.raise_if_any(f"cannot read {content.tensors.label}")
    return Converted(content.tensors, rules)


def _rule_by_name(name: str, layout: Layout) -> Rule:
    if name.startswith(ASIDE):
        return rename(name, name)
    prefixes = {layout.first: FIRST, layout.second: SECOND, layout.raw: RAW, layout.weights: ""}
    prefix = next((p for p in prefixes if name.startswith(p)), None)
    if prefix is None:
        raise UserError(f"{name!r} is in none of {', '.join(sorted(prefixes))}")
    plain = name.removeprefix(prefix)
    rule = torch_rule_of_flax(plain) if layout.twin == "flax" else rename(plain, plain)
    return rule.prefixed(prefix, prefixes[prefix])


def check_checkpoint(
    checkpoint: Checkpoint,
    config: TransformerConfig,
    dtype: type | np.dtype | None = None,
) -> None:
    """Raise one UserError that names every missing, extra, wrong-shape and wrong-dtype tensor.

    Without ``dtype`` any floating type is right. Moments are checked where there are any. No array
    is read.
    """
    tensors = CheckpointTensors(checkpoint)
    rules = canonical_rules(TORCH, config, list(tensors))
    check_tensors(tensors, rules, config, dtype, checkpoint.label)


def check_tensors(
    tensors: Tensors,
    rules: list[Rule],
    config: TransformerConfig,
    dtype: type | np.dtype | None,
    label: str,
) -> None:
    """The same for tensors under any names, given their rules to the canonical ones."""
    faults = Faults()
    exact = None if dtype is None else np.dtype(dtype)
    check_source(tensors, rules, expected_shapes(config), faults, exact)
    bias_alone = config.output_bias == "frozen" and len(faults.messages) == 1
    if not faults.messages:
        return
    bias_alone = bias_alone and OUTPUT_BIAS in faults.messages[0]
    kinds = set(faults.kinds)
    of_kind = ADVICE.get(next(iter(kinds)), "") if len(kinds) == 1 else ""
    advice = FROZEN_BIAS if bias_alone else _begun_otherwise(tensors, rules) or of_kind
    faults.raise_if_any(f"{label} does not fit the config", advice=advice)


def _begun_otherwise(tensors: Tensors, rules: list[Rule]) -> str:
    """What to do where most names that are missing are there behind a beginning of their own."""
    missing = {name for rule in rules for name in rule.sources} - set(tensors)
    tails = {name.rpartition("model.")[2] for name in missing}
    begun = Counter[str]()
    for name in tensors:
        parts = name.split(".")
        splits = range(1, min(len(parts), LONGEST_BEGINNING + 1))
        begun.update(".".join(parts[:n]) for n in splits if ".".join(parts[n:]) in missing | tails)
    beginning, count = begun.most_common(1)[0] if begun else ("", 0)
    if 2 * count <= len(missing):
        return ""
    own = beginning.removesuffix(".model") or beginning
    total = sum(name.startswith(f"{own}.") for name in tensors)
    begin = f"{total} of {len(tensors)} names begin with '{own}.'"
    return f"{begin}: --key {own} reads those alone, without it"


def write_torch_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the torch backend's files into an existing folder, forced onto the disk.

    Every array is read once, by this thread; few are in memory at a time. Numbers that are not
    finite are a UserError that leaves no file, here and in ``write_flax_checkpoint``.
    """
    state = CheckpointTensors(checkpoint)
    tensors, files = Hashed(state), (folder / MODEL, folder / OPTIMIZER)
    moments = [name for name in tensors if name.startswith(BESIDE)]
    count = {COUNT: str(checkpoint.count)}
    with _only_finite(state, *files):
        weights = Subset(tensors, list(checkpoint.weights))
        write_safetensors(folder / MODEL, weights, FORMATS["torch"])
        write_safetensors(folder / OPTIMIZER, Subset(tensors, moments), count)
    write_record(folder, tensors, checkpoint.count)


def write_flax_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the jax backend's ``orbax/`` into an existing folder, forced onto the disk."""
    state = CheckpointTensors(checkpoint)
    rules = [
        rule.prefixed(prefix, target)
        for prefix, target, arrays in (
            ("", ORBAX.weights, checkpoint.weights),
            (FIRST, ORBAX.first, checkpoint.first_moments),
            (SECOND, ORBAX.second, checkpoint.second_moments),
            (RAW, ORBAX.raw, checkpoint.raw),
        )
        for rule in rules_to_flax(arrays)
    ]
    count = Held({ORBAX.count: np.array(checkpoint.count, np.int32)})
    tensors = Hashed(Joined(state.label, [Converted(state, rules), count]))
    with _only_finite(state, folder / ORBAX_FOLDER):
        write_orbax(folder / ORBAX_FOLDER, tensors)
    write_record(folder, tensors, checkpoint.count)


@contextlib.contextmanager
def _only_finite(state: CheckpointTensors, *files: Path) -> Iterator[None]:
    """A block that writes files of a state; they are removed where a number is not finite."""
    yield
    try:
        state.check_finite()
    except UserError:
        for file in files:
            remove(file)
        raise


def load_weights_of(
    path: Path, config: TransformerConfig | None = None, verify: bool = True
) -> tuple[TransformerConfig, dict[str, np.ndarray]]:
    """Config and canonical weights of a run, a checkpoint in it, or a converted folder.

    A run gives its best checkpoint, or its newest where none is marked best. ``config`` is for
    weights without a config.json. Weights that do not fit the config are a UserError, and so are
    those that are not what was written, unless told not to ``verify``.
    """
    config, tensors = open_weights_of(path, config, verify)
    return config, tensors.read_all()


def open_weights_of(
    path: Path, config: TransformerConfig | None = None, verify: bool = True
) -> tuple[TransformerConfig, Tensors]:
    """The same with no weight read yet: each is compared when it is read."""
    located = locate(Path(path))
    config = config or _config_of(located.home, Path(path))
    return config, open_weights(located.weights, config, verify)


def open_weights(folder: Path, config: TransformerConfig, verify: bool = True) -> Tensors:
    """The weights that a checkpoint is used by, under canonical names, read one at a time.

    What does not fit the config is a UserError.
    """
    content = open_content(folder, verify=verify)
    tensors = content.kept
    rules = canonical_rules(content.layout, config, list(tensors))
    check_tensors(tensors, rules, config, None, str(folder))
    wanted = [rule for rule in rules if not rule.targets[0].startswith(BESIDE)]
    return Converted(tensors, wanted)


def _config_of(home: Path | None, path: Path) -> TransformerConfig:
    if home is None:
        raise no_config(path, "a config is never guessed from weights")
    return TransformerConfig.load(home / "config.json")
