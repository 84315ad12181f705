"""State dicts as DataParallel, torch.compile, FSDP's parts, AveragedModel and people save them."""

import json

import numpy as np
import pytest
import torch
from convert_cases import assert_same_arrays, convert, fail
from marian_folders import marian_weights, write_marian
from messages import says
from torch.optim.swa_utils import AveragedModel

import torch_transformer
from convert.checkpoints.states.wrappers import unwrap
from convert.formats.safetensors import open_safetensors
from convert.formats.torch_file.reader import open_torch_pickle
from transformer_spec import TransformerConfig

CONFIG = TransformerConfig(11, 13, 8, 12, 2, 2, 1, 9)


class Holder(torch.nn.Module):
    """A trainer's module with the model as an attribute, as in Lightning."""

    def __init__(self, model: torch.nn.Module, name: str = "model") -> None:
        super().__init__()
        self.add_module(name, model)


def compiled(model: torch.nn.Module) -> torch.nn.Module:
    """The names are the same with every backend."""
    return torch.compile(model, backend="eager")  # pyright: ignore[reportReturnType]


def compiled_layer(model: torch.nn.Module) -> torch.nn.Module:
    layers = model.decoder.dec_layers
    layers[0] = compiled(layers[0])
    return model


WRAPPERS = {
    "DataParallel": torch.nn.DataParallel,
    "compiled": compiled,
    "compiled, then distributed": lambda model: torch.nn.DataParallel(compiled(model)),
    "one layer compiled": compiled_layer,
    "averaged": AveragedModel,
    "Lightning": Holder,
    "Lightning, compiled": lambda model: Holder(compiled(model)),
    "net": lambda model: Holder(model, "net"),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", WRAPPERS)
def test_our_own_model_inside(name, tmp_path, capsys):
    model = torch_transformer.Transformer(CONFIG, seed=3)
    expected = torch_transformer.weights(model)
    CONFIG.save(tmp_path / "config.json")
    torch.save(WRAPPERS[name](model).state_dict(), tmp_path / "model.pt")
    convert(tmp_path, tmp_path.parent / f"{tmp_path.name}-out", "--to", "torch")
    said = capsys.readouterr().out
    assert "of a wrapper" in said and "put back" not in said
    out = open_safetensors(tmp_path.parent / f"{tmp_path.name}-out" / "model.safetensors")
    assert_same_arrays(out.read_all(), expected)


def wrapped(word: str):
    """Another library's names with a part of a wrapper in them."""
    first, _, inside = word.partition(" ")
    arrays = marian_weights()
    return {
        f"{first}{name.replace('.layers.0', f'.layers.0{inside}')}": a for name, a in arrays.items()
    }


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "word", ["module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "base_model.model.",
             " ._fsdp_wrapped_module", "module. ._checkpoint_wrapped_module"],
)  # fmt: skip
def test_another_library_s_there_and_back(word, tmp_path, capsys):
    """The names that it came with are put back, those of the optimizer's moments too."""
    given = wrapped(word)
    source = write_marian(tmp_path / "marian", marian_weights())
    (source / "model.safetensors").unlink()
    state = {name: torch.from_numpy(array) for name, array in given.items()}
    torch.save(state, source / "pytorch_model.bin")
    convert(source, tmp_path / "flax", "--to", "flax")
    changed = sum(name not in marian_weights() for name in given)
    says(capsys.readouterr().out, f"{changed} names", "of a wrapper", "put back")
    convert(tmp_path / "flax", tmp_path / "torch", "--to", "torch")
    assert not any(
        "_" in name.split(".")[0] for name in open_safetensors(tmp_path / "torch/model.safetensors")
    )
    convert(tmp_path / "torch", tmp_path / "back", "--to", "marian", "--container", "pt")
    back = tmp_path / "back" / "pytorch_model.bin"
    assert_same_arrays(open_torch_pickle(back).read_all(), given)
    ledger = json.loads((tmp_path / "flax/conversion.json").read_text())
    assert ledger["sources"].keys() == given.keys()


@pytest.mark.parametrize("word", ["module", "model", "module.model"])
def test_a_key_gives_the_names_that_the_library_loads(word, tmp_path, capsys):
    source = write_marian(tmp_path / "marian", marian_weights())
    (source / "model.safetensors").unlink()
    state = {f"{word}.{name}": torch.from_numpy(a) for name, a in marian_weights().items()}
    torch.save(state, source / "pytorch_model.bin")
    convert(source, tmp_path / "as_it_was", "--to", "marian")
    says(capsys.readouterr().out, "put back", f"unless --key {word} is given")
    assert open_safetensors(tmp_path / "as_it_was/model.safetensors").keys() == state.keys()
    convert(source, tmp_path / "plain", "--to", "marian", "--key", word)
    out = open_safetensors(tmp_path / "plain/model.safetensors")
    assert_same_arrays(out.read_all(), marian_weights())


def test_what_an_averaged_model_counts_comes_back_with_its_names(tmp_path):
    source = write_marian(tmp_path / "marian", marian_weights())
    (source / "model.safetensors").unlink()
    state = {f"module.{name}": torch.from_numpy(a) for name, a in marian_weights().items()}
    state = {"n_averaged": torch.tensor(7)} | state
    torch.save(state, source / "pytorch_model.bin")
    convert(source, tmp_path / "flax", "--to", "flax")
    convert(tmp_path / "flax", tmp_path / "back", "--to", "marian", "--container", "pt")
    back = torch.load(tmp_path / "back" / "pytorch_model.bin")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    convert(tmp_path / "flax", tmp_path / "ours", "--to", "torch")
    assert "n_averaged" not in open_safetensors(tmp_path / "ours" / "model.safetensors")


def test_an_optimizer_that_is_left_out_has_one_reason_and_a_count(tmp_path, capsys):
    model = torch_transformer.Transformer(CONFIG, seed=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones((1, 3), dtype=int), torch.ones((1, 2), dtype=int)).sum().backward()
    optimizer.step()
    CONFIG.save(tmp_path / "config.json")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    convert(tmp_path, tmp_path.parent / f"{tmp_path.name}-out", "--to", "torch")
    said = capsys.readouterr().out
    says(said, "not that of Adam or AdamW: parameter 0 has no step", "more)")
    assert "faults" not in said


def test_what_to_do_with_one_kind_of_fault(tmp_path, capsys):
    extra = {"head.bias": np.zeros(3, np.float32)}
    source = write_marian(tmp_path / "more", marian_weights() | extra)
    says(fail(capsys, source, tmp_path / "out", "--to", "torch"), "--drop NAME")
    inner = "model.encoder.layers.0.fc1.weight"
    other = {n: a[:5] if n == inner else a for n, a in marian_weights().items()}
    source = write_marian(tmp_path / "other", other)
    error = fail(capsys, source, tmp_path / "out", "--to", "torch")
    says(error, "write their sizes in the config")
    assert "--drop" not in error


@pytest.mark.parametrize("named", [False, True])
def test_the_optimizer_of_a_wrapped_model(named, tmp_path):
    """Its parameters are those of the module inside, whatever names they have there."""
    model = torch.nn.DataParallel(torch_transformer.Transformer(CONFIG, seed=3))
    given = model.named_parameters() if named else model.parameters()
    optimizer = torch.optim.AdamW(given, lr=1e-3)
    model.module(torch.ones((1, 3), dtype=int), torch.ones((1, 2), dtype=int)).sum().backward()
    optimizer.step()
    CONFIG.save(tmp_path / "config.json")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    convert(tmp_path, tmp_path.parent / f"{tmp_path.name}-out", "--to", "torch")
    found = open_safetensors(tmp_path.parent / f"{tmp_path.name}-out" / "optimizer.safetensors")
    assert found.metadata == {"count": "1"}
    for name, parameter in model.module.named_parameters():
        expected = optimizer.state[parameter]["exp_avg"].numpy()
        assert (found.read(f"exp_avg/{name}") == expected).all()


@pytest.mark.parametrize("beginning", ["student.", "bart.wrapped."])
@pytest.mark.parametrize("beside", [{}, {"criterion.weight": torch.ones(4)}], ids=["all", "most"])
def test_what_most_names_begin_with_is_said_and_chosen(beginning, beside, tmp_path, capsys):
    """Nothing is taken off that is no wrapper's, or that not all names have."""
    arrays = marian_weights()
    write_marian(tmp_path / "plain", arrays)
    write_marian(tmp_path / "mine", arrays)
    state = {beginning + name: torch.from_numpy(array) for name, array in arrays.items()}
    for file in (tmp_path / "mine").iterdir():
        if file.name != "config.json":
            file.unlink()
    torch.save(state | beside, tmp_path / "mine/pytorch_model.bin")
    message = fail(capsys, tmp_path / "mine", tmp_path / "no", "--to", "torch")
    own, total = beginning.removesuffix("."), len(arrays)
    says(
        message, f"{total} of {total + len(beside)} names begin with '{beginning}'", f"--key {own}"
    )
    convert(tmp_path / "mine", tmp_path / "one", "--to", "torch", "--key", own)
    convert(tmp_path / "plain", tmp_path / "other", "--to", "torch")
    one, other = (open_safetensors(tmp_path / n / "model.safetensors") for n in ("one", "other"))
    assert_same_arrays(one.read_all(), other.read_all())


class TestNames:
    def test_what_a_library_s_own_class_begins_with_stays(self):
        names = ["model.shared.weight", "model.encoder.layers.0.fc1.weight"]
        assert not unwrap(names, {"model_type": "m2m_100"}).names
        assert unwrap([f"model.{name}" for name in names], {"model_type": "m2m_100"}).added == [
            "model."
        ]

    def test_what_the_user_speaks_of_stays(self):
        names = ["model.src_emb.weight", "model.transformer.encoder.layers.0.linear1.weight"]
        assert not unwrap(names, None, ["model.src_emb"]).names

    def test_what_some_names_lack_stays(self):
        assert not unwrap(["module.a.weight", "b.weight"], None).names

    def test_names_that_would_be_one_stay(self):
        assert not unwrap(["a._orig_mod.weight", "a.weight"], None).names
