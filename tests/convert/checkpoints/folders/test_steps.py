"""Folders as Orbax's CheckpointManager, flax.nnx and Flax's own checkpoints leave them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")
ocp = pytest.importorskip("orbax.checkpoint")

import flax  # noqa: E402
import optax  # noqa: E402
from convert_cases import assert_same_arrays, config_flags, convert, fail  # noqa: E402
from flax import nnx  # noqa: E402
from flax.training import checkpoints  # noqa: E402

import flax_transformer  # noqa: E402
from convert import flax_to_torch  # noqa: E402
from convert.__main__ import main  # noqa: E402
from convert.checkpoints.folders.location import locate  # noqa: E402
from convert.checkpoints.reading import open_content  # noqa: E402
from transformer_spec import TransformerConfig  # noqa: E402

CONFIG = TransformerConfig(
    source_vocab_size=11, target_vocab_size=7, hidden_dim=6, inner_dim=5, num_heads=2,
    num_encoder_layers=2, num_decoder_layers=1, max_length=5, encoder_positions="learned",
    tied_embeddings="target_output", output_bias="frozen",
)  # fmt: skip


class WithNoise(nnx.Module):
    """Our twin beside the random numbers and counters of a user's own loop."""

    def __init__(self):
        self.model = flax_transformer.Transformer(CONFIG, seed=1)
        self.dropout = nnx.Dropout(0.1, rngs=nnx.Rngs(0))


def state_of(seed: int):
    return nnx.state(flax_transformer.Transformer(CONFIG, seed=seed))


def names_of(state) -> dict[str, np.ndarray]:
    return {".".join(map(str, path)): np.asarray(v[...]) for path, v in nnx.to_flat_state(state)}


def save(path, tree):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
    return path


def manager(folder, trees, **options):
    with ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(**options)) as written:
        for step, tree in trees.items():
            arguments = (
                tree if isinstance(tree, ocp.args.Composite) else ocp.args.StandardSave(tree)
            )
            written.save(step, args=arguments)
            written.wait_until_finished()
    return folder


def read(capsys, source, folder, *flags) -> str:
    """What a conversion says; the inspection says the same notes."""
    capsys.readouterr()
    convert(source, folder, "--to", "torch", *flags)
    said = capsys.readouterr().out
    assert main(["inspect", str(source), *map(str, flags)]) == 0
    told = capsys.readouterr().out
    for note in said.splitlines()[:-1]:
        assert f"note       {note}" in told
    return said


def assert_weights(folder, state) -> None:
    found = open_content(folder).tensors.read_all()
    expected = flax_to_torch(names_of(state))
    assert_same_arrays(dict(sorted(found.items())), dict(sorted(expected.items())))


class TestStatesOfNnx:
    def test_variables_of_a_state(self, tmp_path, capsys):
        state = state_of(1)
        source = save(tmp_path / "state", state)
        assert any(name.endswith("'value')") for name in json_names(source))
        read(capsys, source, tmp_path / "torch", *config_flags(CONFIG))
        assert_weights(tmp_path / "torch", state)

    @pytest.mark.parametrize("pure", [False, True])
    def test_random_numbers_beside_the_weights_are_named(self, pure, tmp_path, capsys):
        """With nnx.split they would be told apart; with nnx.state they are all in one tree."""
        state = nnx.state(WithNoise())
        source = save(tmp_path / "state", nnx.to_pure_dict(state) if pure else state)
        said = read(capsys, source, tmp_path / "torch", *config_flags(CONFIG))
        value = "" if pure else ".value"
        assert f"dropout.rngs.count{value}, dropout.rngs.key{value}" in said
        assert "states of random numbers and no weights" in said
        assert_weights(tmp_path / "torch", state["model"])

    def test_split_by_kind(self, tmp_path, capsys):
        _, params, frozen, rest = nnx.split(WithNoise(), nnx.Param, nnx.Variable, ...)
        tree = {"params": params, "frozen": frozen, "rest": rest}
        source = save(tmp_path / "state", {k: nnx.to_pure_dict(v) for k, v in tree.items() if v})
        flags = [f for f in config_flags(CONFIG) if f not in ("--output-bias", "frozen")]
        said = read(capsys, source, tmp_path / "torch", *flags, "--output-bias", "none")
        assert "left out, as they lie beside the weights: frozen (" in said
        found = open_content(tmp_path / "torch").tensors
        assert "decoder.finalFc.bias" not in found

    def test_params_alone_lack_the_frozen_bias(self, tmp_path, capsys):
        model = flax_transformer.Transformer(CONFIG, seed=1)
        params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        tree = {"params": params, "opt_state": optax.adamw(1e-3).init(params)}
        source = save(tmp_path / "state", tree)
        said = fail(capsys, source, tmp_path / "x", "--to", "torch", *config_flags(CONFIG))
        assert "missing 'params.decoder.finalFc.bias'" in said
        assert "nnx.state(model, nnx.Param) leaves it out" in said and "damaged" not in said

    @pytest.mark.parametrize("keys", ["state.params", "model", "state"])
    def test_below_other_keys(self, keys, tmp_path, capsys):
        tree = nnx.to_pure_dict(state_of(2))
        for key in reversed(keys.split(".")):
            tree = {key: tree, "step": np.int32(3)}
        source = save(tmp_path / "state", tree)
        read(capsys, source, tmp_path / "torch", *config_flags(CONFIG))
        assert_weights(tmp_path / "torch", state_of(2))

    def test_the_config_beside_the_folder_is_ours(self, tmp_path, capsys):
        source = save(tmp_path / "run" / "weights", state_of(2))
        CONFIG.save(tmp_path / "run" / "config.json")
        assert locate(source).home == tmp_path / "run"
        read(capsys, source, tmp_path / "torch")
        assert_weights(tmp_path / "torch", state_of(2))


def json_names(folder) -> list[str]:
    return list(json.loads((folder / "_METADATA").read_text())["tree_metadata"])


class TestManagers:
    @pytest.fixture(scope="class")
    @staticmethod
    def steps(tmp_path_factory):
        folder = tmp_path_factory.mktemp("manager") / "m"
        return manager(folder, {step: nnx.to_pure_dict(state_of(step)) for step in (9, 100)})

    @pytest.mark.parametrize(
        ("path", "key", "step", "said"),
        [
            ("", None, 100, "step 100 of {} is read (100), the newest of 2; --key or the path"),
            ("", "9", 9, "step 9 of {} is read (9), as --key says"),
            ("9", None, 9, ""),
            ("9/default", None, 9, ""),
        ],
    )
    def test_the_newest_or_the_one_asked_for(self, steps, path, key, step, said, tmp_path, capsys):
        flags = [*config_flags(CONFIG), *(("--key", key) if key else ())]
        told = read(capsys, steps / path, tmp_path / "torch", *flags)
        assert said.format(steps) in told
        assert_weights(tmp_path / "torch", state_of(step))

    def test_the_config_is_above_the_steps(self, steps, tmp_path, capsys):
        shutil.copytree(steps, tmp_path / "m")
        CONFIG.save(tmp_path / "m" / "config.json")
        for number, path in enumerate(("", "100", "100/default")):
            read(capsys, tmp_path / "m" / path, tmp_path / f"torch{number}")
            assert_weights(tmp_path / f"torch{number}", state_of(100))

    def test_what_is_half_written_is_no_step(self, steps, tmp_path, capsys):
        shutil.copytree(steps, tmp_path / "m")
        (tmp_path / "m" / "100").rename(tmp_path / "m" / "100.orbax-checkpoint-tmp")
        said = read(capsys, tmp_path / "m", tmp_path / "torch", *config_flags(CONFIG))
        assert "step 9" in said and "the only one" in said
        assert_weights(tmp_path / "torch", state_of(9))

    def test_nothing_but_half_written_steps(self, steps, tmp_path, capsys):
        shutil.copytree(steps / "9", tmp_path / "m" / "9.orbax-checkpoint-tmp")
        said = fail(capsys, tmp_path / "m", tmp_path / "x", "--to", "torch")
        assert "has no finished step: 9.orbax-checkpoint-tmp" in said
        begun = tmp_path / "m" / "9.orbax-checkpoint-tmp"
        for path in (begun, begun / "default"):
            arguments = (path, tmp_path / "x", "--to", "torch", *config_flags(CONFIG))
            assert f"{begun} was not written to the end" in fail(capsys, *arguments)

    def test_names_of_steps_and_several_items(self, tmp_path, capsys):
        params = nnx.to_pure_dict(state_of(7))
        moments = optax.adamw(1e-3).init(nnx.to_pure_dict(state_of(7)))
        items = ocp.args.Composite(
            model=ocp.args.StandardSave(params),
            optimizer=ocp.args.PyTreeSave(moments),
            about=ocp.args.JsonSave({"epoch": 3}),
        )
        options = {"step_prefix": "ckpt", "step_format_fixed_length": 6}
        folder = manager(tmp_path / "m", {7: items}, **options)
        said = read(capsys, folder, tmp_path / "torch", *config_flags(CONFIG))
        assert "(ckpt_000007)" in said and "moments carried (0 steps" in said
        found = open_content(tmp_path / "torch").tensors
        first = {n.removeprefix("exp_avg/") for n in found if n.startswith("exp_avg/")}
        assert first and "decoder.finalFc.bias" not in first
        convert(folder, tmp_path / "w", "--to", "torch", "--no-optimizer", *config_flags(CONFIG))
        assert_weights(tmp_path / "w", state_of(7))


@pytest.mark.filterwarnings("ignore:Flax Checkpointing")
class TestCheckpointsOfFlax:
    @pytest.mark.parametrize("orbax", [False, True])
    def test_numbered_files_and_folders(self, orbax, tmp_path, capsys):
        before = flax.config.flax_use_orbax_checkpointing
        flax.config.update("flax_use_orbax_checkpointing", orbax)
        try:
            for step in (5, 10):
                tree = {"params": nnx.to_pure_dict(state_of(step)), "step": step}
                checkpoints.save_checkpoint(tmp_path / "f", tree, step, keep=2)
        finally:
            flax.config.update("flax_use_orbax_checkpointing", before)
        said = read(capsys, tmp_path / "f", tmp_path / "new", *config_flags(CONFIG))
        assert "step 10" in said and "checkpoint_5" in said
        assert_weights(tmp_path / "new", state_of(10))
        read(capsys, tmp_path / "f" / "checkpoint_5", tmp_path / "old", *config_flags(CONFIG))
        assert_weights(tmp_path / "old", state_of(5))

    def test_whole_numbers_as_keys(self, tmp_path, capsys):
        """A list in a state of nnx, written by msgpack_serialize, has them."""
        content = flax.serialization.msgpack_serialize(nnx.to_pure_dict(state_of(3)))
        (tmp_path / "model.ckpt").write_bytes(content)
        read(capsys, tmp_path / "model.ckpt", tmp_path / "torch", *config_flags(CONFIG))
        assert_weights(tmp_path / "torch", state_of(3))
