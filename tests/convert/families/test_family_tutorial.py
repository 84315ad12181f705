"""Both published forms of the tutorial's checkpoint compute the same in both twins, and go back."""

import json

import numpy as np
import pytest
import tutorial_reference
from convert_cases import assert_same_arrays, convert
from family_table import assert_measured
from messages import says
from tutorial_reference import Sizes, random_state

from convert.__main__ import main
from convert.checkpoints import load_weights_of
from convert.core.tensors import Held
from convert.families.tutorial import UNUSED
from convert.formats.safetensors import write_safetensors
from convert.formats.torch_file.reader import open_torch_pickle
from convert.formats.torch_file.writer import write_torch_pickle

FORMS = ["first", "shared", "second"]
SIZES = [Sizes(), Sizes(hidden_dim=6, num_heads=3, num_encoder_layers=1, inner_dim=11)]


def convert_state(folder, sizes, form, to="torch", *more, dtype=np.float64):
    """A converted folder of a random checkpoint; the state in float64 is returned with it."""
    state = {n: a.astype(dtype) for n, a in random_state(sizes, form).items()}
    folder.mkdir(exist_ok=True)
    write_safetensors(folder / "tutorial.safetensors", Held(state))
    arguments = ["--from", "tutorial", "--to", to, *sizes.flags(), *more]
    convert(folder / "tutorial.safetensors", folder / to, *arguments)
    return folder / to, state


@pytest.mark.parametrize("sizes", SIZES, ids=["many layers", "one layer"])
@pytest.mark.parametrize("form", FORMS)
class TestLogits:
    def expected(self, state, sizes):
        source, target = tutorial_reference.batch(sizes)
        return source, target, tutorial_reference.logits(state, sizes, source, target)

    def test_torch(self, tmp_path, sizes, form):
        torch = pytest.importorskip("torch")
        torch_transformer = pytest.importorskip("torch_transformer")
        folder, state = convert_state(tmp_path, sizes, form)
        source, target, expected = self.expected(state, sizes)
        model = torch_transformer.load(folder)
        with torch.no_grad():
            logits = model(torch.from_numpy(source), torch.from_numpy(target)).numpy()
        assert logits.dtype == np.float64
        assert_measured("tutorial", "in", float(np.abs(logits - expected).max()))

    @pytest.mark.sampled(3)
    def test_flax(self, tmp_path, sizes, form):
        jax = pytest.importorskip("jax")
        pytest.importorskip("flax_transformer")
        with jax.enable_x64(True):
            import flax_transformer

            folder, state = convert_state(tmp_path, sizes, form, "flax")
            source, target, expected = self.expected(state, sizes)
            model = flax_transformer.load(folder)
            logits = np.asarray(model(jax.numpy.asarray(source), jax.numpy.asarray(target)))
        assert logits.dtype == np.float64
        assert_measured("tutorial", "in", float(np.abs(logits - expected).max()))


class TestImport:
    def test_one_norm_becomes_all_norms_of_its_layer(self, tmp_path):
        folder, state = convert_state(tmp_path, Sizes(), "first")
        _, weights = load_weights_of(folder)
        for number in (1, 2, 3):
            name = "decoder.dec_layers.1.layerNorm"
            assert np.array_equal(weights[f"{name}{number}.weight"], state[f"{name}.weight"])
        ledger = json.loads((folder / "conversion.json").read_text())
        entry = ledger["sources"]["encoder.enc_layers.0.layerNorm.bias"]
        assert entry["what"] == "duplicated"
        assert entry["reason"] == "one module used several times"
        assert entry["becomes"] == [f"encoder.enc_layers.0.layerNorm{i}.bias" for i in (1, 2)]

    def test_the_unused_table_is_kept_aside_with_the_reason(self, tmp_path):
        folder, _ = convert_state(tmp_path, Sizes(), "second")
        entry = json.loads((folder / "conversion.json").read_text())["sources"][UNUSED]
        assert entry["becomes"] == [f"aside/{UNUSED}"]
        says(entry["reason"], "kept aside", "never used")
        assert UNUSED not in load_weights_of(folder)[1]

    @pytest.mark.parametrize("form", FORMS)
    def test_a_file_without_the_unused_table(self, tmp_path, form):
        state = random_state(Sizes(), form)
        del state[UNUSED]
        write_torch_pickle(tmp_path / "m.pt", Held(state))
        flags = ["--from", "tutorial", "--to", "torch", *Sizes().flags()]
        convert(tmp_path / "m.pt", tmp_path / "d", *flags)
        assert not (tmp_path / "d" / "kept_aside.safetensors").exists()

    def test_max_length_is_100_unless_given(self, tmp_path):
        folder, _ = convert_state(tmp_path, Sizes(max_length=100), "second", "flax")
        assert load_weights_of(folder)[0].max_length == 100

    def test_faults_are_named_in_the_tutorial_s_names(self, tmp_path, capsys):
        state = random_state(Sizes(), "first")
        del state["encoder.enc_layers.0.ffn.fc1.bias"]
        name = "decoder.dec_layers.1.layerNorm.weight"
        state[name] = np.zeros(3)
        write_safetensors(tmp_path / "m.safetensors", Held(state))
        arguments = [str(tmp_path / "m.safetensors"), str(tmp_path / "d"), "--from", "tutorial"]
        assert main([*arguments, "--to", "flax", *Sizes().flags()]) == 2
        error = capsys.readouterr().err
        assert "2 faults" in error
        assert "missing 'encoder.enc_layers.0.ffn.fc1.bias': expected float [7]" in error
        says(error, "shape", repr(name), "float64 [3]", "expected float [10]")


class TestExport:
    @pytest.mark.parametrize("twin", ["torch", "flax"])
    def test_second_form_there_and_back(self, tmp_path, twin):
        folder, state = convert_state(tmp_path, Sizes(), "second", twin, dtype=np.float32)
        convert(folder, tmp_path / "back", "--to", "tutorial")
        back = open_torch_pickle(tmp_path / "back" / "model.pt").read_all()
        assert_same_arrays(back, state)

    @pytest.mark.parametrize("sizes", SIZES, ids=["many layers", "one layer"])
    def test_a_model_of_ours(self, tmp_path, sizes):
        torch = pytest.importorskip("torch")
        torch_transformer = pytest.importorskip("torch_transformer")
        folder, _ = convert_state(tmp_path, sizes, "second")
        (folder / "kept_aside.safetensors").unlink()
        (folder / "origin.json").unlink()
        (folder / "conversion.json").unlink()
        config, weights = load_weights_of(folder)
        draw = np.random.default_rng(5)
        ours = {name: draw.normal(0, 0.5, array.shape) for name, array in weights.items()}
        write_safetensors(folder / "model.safetensors.new", Held(ours))
        (folder / "model.safetensors.new").rename(folder / "model.safetensors")
        convert(folder, tmp_path / "theirs", "--to", "tutorial")
        state = open_torch_pickle(tmp_path / "theirs" / "model.pt").read_all()
        source, target = tutorial_reference.batch(sizes)
        expected = tutorial_reference.logits(state, sizes, source, target)
        model = torch_transformer.load(folder)
        with torch.no_grad():
            logits = model(torch.from_numpy(source), torch.from_numpy(target)).numpy()
        assert_measured("tutorial", "out", float(np.abs(logits - expected).max()))

    def test_through_both_twins(self, tmp_path):
        folder, state = convert_state(tmp_path, Sizes(), "second", "flax")
        convert(folder, tmp_path / "torch", "--to", "torch")
        safe = ("--container", "safetensors")
        convert(tmp_path / "torch", tmp_path / "back", "--to", "tutorial", *safe)
        original = tmp_path / "tutorial.safetensors"
        kept = load_back(tmp_path / "back" / "model.safetensors")
        assert_same_arrays(kept, load_back(original))

    def test_first_form_leaves_as_the_second(self, tmp_path):
        folder, _ = convert_state(tmp_path, Sizes(), "first")
        convert(folder, tmp_path / "back", "--to", "tutorial")
        names = set(open_torch_pickle(tmp_path / "back" / "model.pt"))
        assert names == set(random_state(Sizes(), "second"))

    def test_zeros_where_nothing_was_kept_aside(self, tmp_path):
        folder, _ = convert_state(tmp_path, Sizes(), "second")
        (folder / "kept_aside.safetensors").unlink()
        convert(folder, tmp_path / "back", "--to", "tutorial")
        table = open_torch_pickle(tmp_path / "back" / "model.pt").read(UNUSED)
        assert (table.shape, table.any()) == ((17, 10), False)
        ledger = json.loads((tmp_path / "back" / "conversion.json").read_text())
        assert ledger["targets"][UNUSED]["what"] == "derived"

    def test_other_models_are_refused_with_every_reason(self, tmp_path, capsys):
        folder, _ = convert_state(
            tmp_path, Sizes(), "second", "torch", "--activation", "relu", "--norm-epsilon", "1e-6"
        )
        assert main([str(folder), str(tmp_path / "back"), "--to", "tutorial"]) == 2
        error = capsys.readouterr().err
        says(error, "activation", "'relu'", "'identity' only")
        says(error, "norm_epsilon", 1e-6, "1e-05 only")


def load_back(path):
    from convert.formats.safetensors import open_safetensors

    return open_safetensors(path).read_all()


def test_reference_is_sensitive():
    """The reference tells the forms' semantics apart: a scale or another ReLU would be seen."""
    sizes, state = Sizes(), random_state(Sizes(), "second")
    source, target = tutorial_reference.batch(sizes)
    logits = tutorial_reference.logits(state, sizes, source, target)
    name = "encoder.enc_layers.0.multiheadattention.fcQ"
    for part in ("weight", "bias"):
        state[f"{name}.{part}"] = state[f"{name}.{part}"] / np.sqrt(5)
    assert np.abs(tutorial_reference.logits(state, sizes, source, target) - logits).max() > 1e-3
