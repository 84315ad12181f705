"""Checkpoint folders of both backends: one reader, canonical names, damage named."""

import dataclasses

import jax
import numpy as np
import optax
import orbax.checkpoint
import pytest
from convert_cases import CONFIG, WRITERS, assert_same_arrays, checkpoint, write_run
from messages import faults_say, saying, says

import twinformer
from convert import torch_to_flax
from convert.checkpoints import (
    Checkpoint,
    check_checkpoint,
    load_weights_of,
    read_checkpoint,
    write_flax_checkpoint,
    write_torch_checkpoint,
)
from convert.checkpoints.layouts import COUNT
from convert.core.tensors import Held
from convert.formats.content import nest
from convert.formats.orbax_writer import write_orbax
from transformer_spec import ConfigError, UserError, initial_weights


@pytest.fixture(params=["torch", "flax"])
def twin(request):
    if request.param == "flax":
        pytest.importorskip("orbax.checkpoint")
    return request.param


class TestReadAndWrite:
    def test_round_trip(self, tmp_path, twin):
        WRITERS[twin](tmp_path, checkpoint())
        read = read_checkpoint(tmp_path)
        assert_same_arrays(read.weights, checkpoint().weights)
        assert_same_arrays(read.first_moments, checkpoint().first_moments)
        assert_same_arrays(read.second_moments, checkpoint().second_moments)
        assert read.count == 30
        check_checkpoint(read, CONFIG, np.float32)

    def test_before_the_first_step(self, tmp_path, twin):
        WRITERS[twin](tmp_path, Checkpoint(checkpoint().weights))
        read = read_checkpoint(tmp_path)
        assert (read.first_moments, read.second_moments, read.count) == ({}, {}, 0)
        check_checkpoint(read, CONFIG)

    def test_files(self, tmp_path, twin):
        WRITERS[twin](tmp_path, checkpoint())
        expected = ["model.safetensors", "optimizer.safetensors"] if twin == "torch" else ["orbax"]
        assert sorted(p.name for p in tmp_path.iterdir()) == [*expected, "tensors.json"]

    def test_writing_twice_gives_the_same_bytes(self, tmp_path):
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            write_torch_checkpoint(tmp_path / name, checkpoint())
        for file in ("model.safetensors", "optimizer.safetensors"):
            one, two = (tmp_path / name / file for name in ("one", "two"))
            assert one.read_bytes() == two.read_bytes()


class TestDamage:
    @pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
    def test_missing_or_truncated_file_is_named(self, tmp_path, file):
        write_torch_checkpoint(tmp_path, checkpoint())
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(content[:-1])
        with pytest.raises(UserError, match=rf"{file} is truncated"):
            read_checkpoint(tmp_path)
        (tmp_path / file).unlink()
        with pytest.raises(UserError, match=file):
            read_checkpoint(tmp_path)

    def test_half_written_orbax(self, tmp_path):
        pytest.importorskip("orbax.checkpoint")
        WRITERS["flax"](tmp_path, checkpoint())
        (tmp_path / "orbax" / "_METADATA").unlink()
        with pytest.raises(UserError, match="orbax has no _METADATA"):
            read_checkpoint(tmp_path)

    def test_no_folder(self, tmp_path):
        with pytest.raises(UserError, match="no checkpoint folder"):
            read_checkpoint(tmp_path / "x")

    def test_both_kinds_at_once(self, tmp_path):
        write_torch_checkpoint(tmp_path, checkpoint())
        (tmp_path / "orbax").mkdir()
        with pytest.raises(UserError, match=r"model\.safetensors and orbax"):
            read_checkpoint(tmp_path)

    def test_foreign_names(self, tmp_path):
        write_torch_checkpoint(tmp_path, Checkpoint({"fc.kernel": np.zeros(2), "x": np.zeros(2)}))
        with pytest.raises(UserError, match="'x' is no flax weight name"):
            read_checkpoint(tmp_path)


class TestCheck:
    def test_all_faults_of_weights_and_moments_at_once(self):
        broken = checkpoint()
        broken.weights["encoder.embedding.weight"] = np.zeros((2, 6), np.float32)
        broken.weights["more"] = np.zeros(2)
        del broken.first_moments["decoder.embedding.weight"]
        name = "encoder.enc_layers.0.ffn.fc1.bias"
        broken.second_moments[name] = broken.second_moments[name].astype(np.float64)
        with pytest.raises(UserError) as caught:
            check_checkpoint(broken, CONFIG, np.float32)
        says(caught.value, "4 faults")
        faults_say(
            caught.value.faults,
            ("shape", "'encoder.embedding.weight'", "float32 [2, 6]", "expected float32 [11, 6]"),
            ("missing", "'exp_avg/decoder.embedding.weight'", "expected float32 [11, 6]"),
            ("dtype", f"'exp_avg_sq/{name}'", "float64 [7]", "expected float32 [7]"),
            ("extra", "'more'", "float64 [2]"),
        )

    def test_any_float_is_right_unless_told(self):
        half = Checkpoint(initial_weights(CONFIG, 0, np.float16))
        check_checkpoint(half, CONFIG)
        with pytest.raises(UserError, match="expected float32"):
            check_checkpoint(half, CONFIG, np.float32)

    def test_moments_of_a_frozen_weight_are_extra(self):
        given = checkpoint()
        given.first_moments["decoder.finalFc.bias"] = np.zeros(11, np.float32)
        with pytest.raises(UserError, match=r"extra 'exp_avg/decoder\.finalFc\.bias'"):
            check_checkpoint(given, CONFIG)


class TestLoadWeights:
    def test_a_run_gives_its_newest_checkpoint_or_its_best(self, tmp_path, twin):
        newest = write_run(tmp_path / "newest", twin)
        best = write_run(tmp_path / "best", twin, best=10)
        for run, step in ((newest, 20), (best, 10), (newest / "checkpoints/step_00000010", 10)):
            config, weights = load_weights_of(run)
            assert config == CONFIG
            assert_same_arrays(weights, initial_weights(CONFIG, step))

    def test_through_the_link(self, tmp_path):
        run = write_run(tmp_path / "run", "torch", best=10)
        config, weights = load_weights_of(run / "best")
        assert config == CONFIG
        assert_same_arrays(weights, initial_weights(CONFIG, 10))

    def test_run_without_checkpoint(self, tmp_path):
        write_run(tmp_path / "run", "torch", steps=())
        (tmp_path / "run" / "checkpoints").mkdir()
        with pytest.raises(UserError, match="no checkpoint yet"):
            load_weights_of(tmp_path / "run")

    def test_a_config_is_never_guessed(self, tmp_path):
        write_torch_checkpoint(tmp_path, checkpoint())
        with pytest.raises(UserError, check=saying("no config.json")):
            load_weights_of(tmp_path)
        config, weights = load_weights_of(tmp_path, CONFIG)
        assert config == CONFIG
        assert list(weights) == list(initial_weights(CONFIG, 0))

    def test_weights_that_do_not_fit(self, tmp_path):
        run = write_run(tmp_path / "run", "torch")
        dataclasses.replace(CONFIG, inner_dim=8).save(run / "config.json")
        with pytest.raises(UserError, check=saying("fit the config", "27 faults")):
            load_weights_of(run)

    def test_damaged_config(self, tmp_path):
        run = write_run(tmp_path / "run", "torch")
        (run / "config.json").write_text("{")
        with pytest.raises(ConfigError, match=r"config\.json: is not readable"):
            load_weights_of(run)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(UserError, match="does not exist"):
            load_weights_of(tmp_path / "x")


class TestOptax:
    def test_a_loop_of_ones_own_restores_it(self, tmp_path):
        """Orbax hands over weights and the state of ``optax.adamw`` as that loop has them."""
        write_flax_checkpoint(tmp_path, checkpoint())
        params, trained = (
            nest(torch_to_flax(part))
            for part in (checkpoint().weights, checkpoint().first_moments)  # without a frozen bias
        )
        target = {"params": params, "opt_state": optax.adamw(1e-3).init(trained)}
        with orbax.checkpoint.StandardCheckpointer() as checkpointer:
            found = checkpointer.restore(tmp_path / "orbax", target)
        adam = found["opt_state"][0]
        assert isinstance(adam, optax.ScaleByAdamState) and adam.count == checkpoint().count
        for part, expected in (
            (found["params"], checkpoint().weights),
            (adam.mu, checkpoint().first_moments),
            (adam.nu, checkpoint().second_moments),
        ):
            jax.tree.map(np.testing.assert_array_equal, part, nest(torch_to_flax(expected)))

    def test_earlier_checkpoints_are_read(self, tmp_path):
        """Moments beside the weights, not in an ``opt_state``."""
        held, arrays = checkpoint(), {COUNT: np.array(checkpoint().count)}
        parts = {"params.": held.weights, "mu.": held.first_moments, "nu.": held.second_moments}
        for prefix, part in parts.items():
            arrays |= {prefix + name: array for name, array in torch_to_flax(part).items()}
        write_orbax(tmp_path / "orbax", Held(arrays))
        found = read_checkpoint(tmp_path)
        assert found.count == held.count
        for part in ("weights", "first_moments", "second_moments"):
            one, other = getattr(found, part), getattr(held, part)
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_folder_of_runs_names_them(tmp_path):
    """As when runs is given in place of runs/NAME."""
    for number in range(5):
        write_run(tmp_path / f"runs/run-{number}", "torch")
    with pytest.raises(UserError, match="none of them.*: run-0, run-1, run-2 .and 2 more"):
        twinformer.convert(str(tmp_path / "runs"), str(tmp_path / "new"), to="torch")
