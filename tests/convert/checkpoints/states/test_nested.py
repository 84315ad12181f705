"""Weights, settings, optimizers and copies in files that hold more, as libraries save them."""

import argparse
import datetime
import enum
import json
import sys
import types

import numpy as np
import pytest
import torch
from convert_cases import fail
from marian_folders import CONFIG, SHARED, marian_weights, write_marian
from messages import saying, says
from safetensors.numpy import save_file

import torch_transformer
from convert.__main__ import main
from convert.checkpoints.reading import open_content
from convert.checkpoints.states.nested import open_nested
from convert.checkpoints.states.objects import settings_of
from convert.conversion.origin import Origin
from convert.formats.content import Unread
from convert.formats.safetensors import open_safetensors
from convert.formats.torch_file.reader import open_torch_file
from transformer_spec import UserError

NAMES = [
    "encoder.layers.0.fc1.weight", "encoder.layers.0.fc1.bias", "decoder.layers.0.fc1.weight",
    "decoder.layers.0.fc1.bias", "decoder.layers.0.encoder_attn.bias",
]  # fmt: skip


def state(start: float = 0, prefix: str = "") -> dict[str, torch.Tensor]:
    """A small model's weights, each a number of its own."""
    return {f"{prefix}{name}": torch.full((2,), start + i) for i, name in enumerate(NAMES)}


def saved(path, content):
    torch.save(content, path)
    return path


def first(nested) -> float:
    return float(nested.tensors.read(NAMES[0])[0])


class Average:
    """Moving averages as a class of someone's own keeps them."""

    def __init__(self, shadow):
        self.shadow, self.decay = shadow, 0.999


class Options(argparse.Namespace):
    pass


def test_objects_beside_weights_are_named_once(tmp_path):
    day = datetime.datetime(2024, 1, 2)
    content = {"model": state(), "when": [day, datetime.datetime(2025, 1, 1)]}
    content |= {"args": Options(arch="transformer"), "ema": Average(None)}
    path = saved(tmp_path / "m.pt", content)
    nested = open_nested(path)
    assert first(nested) == 0 and nested.settings == {"arch": "transformer"}
    (note,) = nested.notes
    says(note, "not read", "datetime.datetime (2)", f"{__name__}.Average")
    assert "Options" not in note and "Namespace" not in note


def test_many_kinds_of_objects_are_one_bounded_line(tmp_path):
    classes = [type(f"Class{i}", (), {"__module__": __name__}) for i in range(40)]
    module = sys.modules[__name__]
    for made in classes:
        setattr(module, made.__name__, made)
    path = saved(tmp_path / "m.pt", {"model": state(), "all": [made() for made in classes]})
    (note,) = open_nested(path).notes
    says(note, "and 28 more")
    assert len(note) < 1200


def test_weights_inside_an_object(tmp_path):
    path = saved(tmp_path / "m.pt", {"trainer": Average(state(3)), "epoch": 1})
    with pytest.raises(UserError, check=saying("none of the usual names", "trainer.shadow")):
        open_nested(path)
    assert first(open_nested(path, "trainer.shadow")) == 3
    path = saved(tmp_path / "n.pt", Average(state(4)))
    with pytest.raises(UserError, check=saying("--key: shadow")):
        open_nested(path)
    assert first(open_nested(path, "shadow")) == 4


class TestModules:
    def test_a_whole_model_of_ours(self, tmp_path, capsys):
        model = torch_transformer.Transformer(CONFIG, seed=3)
        expected = torch_transformer.weights(model)
        saved(tmp_path / "model.pt", model)
        CONFIG.save(tmp_path / "config.json")
        out = tmp_path.parent / f"{tmp_path.name}-out"
        assert main([str(tmp_path), str(out), "--to", "torch"]) == 0
        says(capsys.readouterr().out, "pickled torch_transformer.model.Transformer", "state_dict()")
        found = torch_transformer.weights(torch_transformer.load(out))
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)

    @pytest.mark.parametrize("place", ["", "model", "module.model"])
    def test_a_whole_model_of_transformers_has_its_settings(self, tmp_path, place):
        """Without config.json: its class says the model type, its attributes the rest."""
        transformers = pytest.importorskip("transformers")
        config = transformers.MarianConfig(
            vocab_size=11, d_model=6, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=7,
            encoder_attention_heads=2, decoder_attention_heads=2, decoder_ffn_dim=7,
            pad_token_id=10, max_position_embeddings=9, decoder_start_token_id=10,
            eos_token_id=0, bos_token_id=0,
        )  # fmt: skip
        model = transformers.MarianMTModel(config)
        content = model
        for key in reversed(place.split(".") if place else ()):
            content = {key: content}
        path = saved(tmp_path / "model.pt", content)
        key = ["--key", place] if "." in place else []
        assert main([str(path), str(tmp_path / "out"), "--to", "torch", *key]) == 0
        found = torch_transformer.weights(torch_transformer.load(tmp_path / "out"))
        expected = model.state_dict()["model.encoder.layers.0.fc1.weight"].numpy()
        np.testing.assert_array_equal(found["encoder.enc_layers.0.ffn.fc1.weight"], expected)

    def test_a_config_object_beside_the_weights(self, tmp_path):
        transformers = pytest.importorskip("transformers")
        config = transformers.BartConfig(vocab_size=40, d_model=16, encoder_layers=1)
        path = saved(tmp_path / "m.pt", {"model_state_dict": state(), "config": config})
        nested = open_nested(path)
        assert nested.notes == [] and nested.settings is not None
        chosen = {name: nested.settings[name] for name in ("model_type", "d_model", "vocab_size")}
        assert chosen == {"model_type": "bart", "d_model": 16, "vocab_size": 40}
        assert not any(name.startswith("_") for name in nested.settings)


def omegaconf(values, parent=None):
    """As omegaconf 2.1 pickles a config: containers and nodes that know their parents."""

    def made(module, name, **attributes):
        sys.modules.setdefault("omegaconf", types.ModuleType("omegaconf"))
        found = sys.modules.setdefault(module, types.ModuleType(module))
        if not hasattr(found, name):
            setattr(found, name, type(name, (), {"__module__": module}))
        instance = getattr(found, name)()
        instance.__dict__.update(attributes)
        return instance

    metadata = made("omegaconf.base", "ContainerMetadata", ref_type=dict, flags={}, key_type=str)
    if isinstance(values, dict):
        node = made("omegaconf.dictconfig", "DictConfig", _metadata=metadata, _parent=parent)
        node._content = {key: omegaconf(value, node) for key, value in values.items()}
    elif isinstance(values, list):
        node = made("omegaconf.listconfig", "ListConfig", _metadata=metadata, _parent=parent)
        node._content = [omegaconf(value, node) for value in values]
    else:
        node = made("omegaconf.nodes", "AnyNode", _metadata=metadata, _parent=parent, _val=values)
    return node


class Activation(enum.Enum):
    RELU = "relu"


@pytest.fixture
def without_omegaconf():
    """The module is not there when the file is read."""
    yield
    for name in [name for name in sys.modules if name.startswith("omegaconf")]:
        del sys.modules[name]


@pytest.mark.usefixtures("without_omegaconf")
class TestOmegaConf:
    values = {
        "model": {"arch": "transformer", "encoder": {"layers": 6, "embed_path": None},
                  "betas": [0.9, "${optimizer.second}"], "max_source_positions": "${task.longest}",
                  "unknown": "${nothing.here}", "text": "a ${task.longest} b"},
        "task": {"longest": "${common.longest}"}, "common": {"longest": 1024},
        "optimizer": {"second": 0.98},
    }  # fmt: skip

    def test_the_settings_of_a_checkpoint(self, tmp_path):
        path = saved(
            tmp_path / "m.pt", {"args": None, "cfg": omegaconf(self.values), "model": state()}
        )
        nested = open_nested(path)
        assert nested.settings == {
            "arch": "transformer", "encoder": {"layers": 6, "embed_path": None},
            "betas": [0.9, 0.98], "max_source_positions": 1024, "unknown": "${nothing.here}",
            "text": "a ${task.longest} b",
        }  # fmt: skip
        assert nested.notes == []

    def test_a_member_of_an_enum_is_its_value(self, tmp_path):
        path = saved(tmp_path / "m.pt", omegaconf({"activation": Activation.RELU}))
        found = settings_of(open_torch_file(path).content)
        assert found is not None and str(found["activation"]).lower() == "relu"

    def test_settings_that_contain_themselves(self):
        node = Unread("omegaconf.dictconfig.DictConfig", ())
        node.state = {"_content": {"a": node}}
        with pytest.raises(UserError, match="contain themselves"):
            settings_of(node)


def optimizer(count=2):
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(count)]
    made = torch.optim.AdamW(parameters)
    sum(p.sum() for p in parameters).backward()
    made.step()
    return made


def test_settings_with_objects_for_keys_are_recorded(tmp_path):
    """What JSON has no key for becomes text in origin.json."""
    settings = {"model_type": "x", "inner": {Activation.RELU: [{(1, 2): 3}]}, "size": 1}
    path = saved(tmp_path / "m.pt", {"model": state(), "args": Options(**settings)})
    found = open_nested(path).settings
    Origin("x", found, {}, {}).save(tmp_path / "origin.json")
    text = (tmp_path / "origin.json").read_text()
    assert json.loads(text)["settings"]["inner"] and "(1, 2)" in text and "not read" in text


class TestOptimizers:
    @pytest.mark.parametrize("place", ["optimizer_states", "optim"])
    def test_the_only_one_of_a_list_or_dict(self, tmp_path, place):
        """Lightning keeps a list; OpenNMT-py a dict around the state."""
        state_dict = optimizer().state_dict()
        inner = [state_dict] if place == "optimizer_states" else {"optimizer": state_dict, "n": 1}
        nested = open_nested(saved(tmp_path / "m.ckpt", {"state_dict": state(), place: inner}))
        assert nested.optimizer is not None and nested.undone == ""
        assert list(nested.optimizer.state["state"]) == [0, 1]

    def test_several(self, tmp_path):
        states = [optimizer().state_dict(), optimizer(3).state_dict()]
        nested = open_nested(
            saved(tmp_path / "m.ckpt", {"state_dict": state(), "optimizer_states": states})
        )
        assert nested.optimizer is None
        says(nested.undone, "several", "optimizer_states.0, optimizer_states.1")

    def test_an_object(self, tmp_path):
        nested = open_nested(saved(tmp_path / "m.pt", {"model": state(), "optimizer": optimizer()}))
        assert nested.optimizer is None
        says(nested.undone, "torch.optim.adamw.AdamW", "state_dict()")

    def test_moments_are_those_of_the_weights_that_were_trained(self, tmp_path):
        """Not of the averages that a key chooses."""
        content = {"model": state(), "ema": state(5), "optimizer": optimizer(5).state_dict()}
        path = saved(tmp_path / "m.pt", content)
        assert open_nested(path).optimizer and open_nested(path, "model").optimizer
        nested = open_nested(path, "ema")
        assert first(nested) == 5 and nested.optimizer is None
        says(nested.undone, "the optimizer is left out", "its moments are not those of ema")

    @pytest.mark.parametrize(
        ("key", "carried"), [("net", True), ("state_dict.net", True), ("average", False)]
    )
    def test_moments_and_a_beginning_of_names(self, tmp_path, key, carried):
        both = state(0, "net.") | state(5, "average.") | {"loss.weight": torch.ones(2)}
        content = {"state_dict": both, "optimizer": optimizer(5).state_dict()}
        nested = open_nested(saved(tmp_path / "m.pt", content), key)
        assert first(nested) == (0 if carried else 5)
        assert (nested.optimizer is not None) == carried == (not nested.undone)

    def test_moments_of_what_one_beginning_has_and_no_other(self, tmp_path):
        content = {"model": state(0, "net."), "optimizer": optimizer(5).state_dict()}
        path = saved(tmp_path / "m.pt", content)
        assert open_nested(path, "net").optimizer
        path = saved(tmp_path / "a.pt", {**content, "model": state() | state(5, "module_ema.")})
        assert open_nested(path).optimizer and not open_nested(path, "module_ema").optimizer


class TestCopies:
    @pytest.mark.parametrize(
        ("place", "inner"),
        [("ema_state_dict", None), ("model_ema", None), ("ema", "shadow"), ("best", "module.")],
    )
    def test_beside_the_weights(self, tmp_path, place, inner):
        copy = state(5, inner) if inner == "module." else state(5)
        copy = {inner: copy} if inner == "shadow" else copy
        key = f"{place}.{inner}" if inner == "shadow" else place
        path = saved(tmp_path / "m.pt", {"state_dict": state(), place: copy, "epoch": 3})
        nested = open_nested(path)
        assert first(nested) == 0
        says(nested.notes, f"--key {key}", "another copy")
        assert float(next(iter(open_nested(path, key).tensors.read_all().values()))[0]) == 5

    def test_of_torch_s_own_averaging(self, tmp_path):
        """AveragedModel wraps and counts."""
        model = torch.nn.Transformer(4, 2, 1, 1, 8, batch_first=True)
        average = torch.optim.swa_utils.AveragedModel(model)
        for copy in (average.state_dict(), average):
            path = saved(tmp_path / "m.pt", {"model": model.state_dict(), "ema": copy})
            says(open_nested(path).notes, "--key ema", "another copy")

    def test_inside_an_object(self, tmp_path):
        path = saved(tmp_path / "m.pt", {"state_dict": state(), "ema": Average(state(5))})
        says(open_nested(path).notes, "--key ema.shadow", "another copy")

    def test_averages_without_names(self, tmp_path):
        path = saved(
            tmp_path / "m.pt", {"model": state(), "ema": {"shadow_params": list(state(5).values())}}
        )
        says(open_nested(path).notes, "ema.shadow_params", "without names")

    @pytest.mark.parametrize(
        ("one", "other"),
        [("model", "ema_model"), ("student", "teacher.module"), ("net.a", "net.b")],
    )
    @pytest.mark.parametrize("place", ["", "state_dict"])
    def test_beginnings_of_flat_names(self, tmp_path, one, other, place):
        content = state(0, f"{one}.") | state(5, f"{other}.") | {"step": torch.tensor(3)}
        path = saved(tmp_path / "m.pt", {place: content} if place else content)
        keys = [f"{place}.{name}" if place else name for name in (one, other)]
        with pytest.raises(
            UserError, check=saying("2 copies", f"{one}. and {other}.", ", ".join(keys))
        ):
            open_nested(path)
        for key in (other, keys[1]):
            assert first(open_nested(path, key)) == 5
        assert first(open_nested(path, one)) == 0

    def test_averages_under_a_beginning(self, tmp_path):
        path = saved(tmp_path / "m.pt", state() | state(5, "module_ema."))
        nested = open_nested(path)
        assert list(nested.tensors) == NAMES and first(nested) == 0
        says(nested.notes, "'module_ema.'", "--key module_ema", "left out")
        assert first(open_nested(path, "module_ema")) == 5

    def test_halves_are_no_copies(self, tmp_path):
        """An encoder's names are in a decoder as well."""
        content = {
            f"{half}.layers.{i}.fc1.weight": torch.ones(2)
            for half in ("encoder", "decoder")
            for i in range(6)
        }
        nested = open_nested(
            saved(tmp_path / "m.pt", {f"model.{n}": x for n, x in content.items()})
        )
        assert len(nested.tensors) == 12 and nested.notes == []

    def test_of_safetensors(self, tmp_path, capsys):
        given = marian_weights()
        folder = write_marian(
            tmp_path / "m",
            {f"{side}.{name}": x for name, x in given.items() for side in ("a", "b")},
        )
        says(fail(capsys, folder, tmp_path / "o", "--to", "torch"), "2 copies", "--key: a, b")
        assert main([str(folder), str(tmp_path / "o"), "--to", "torch", "--key", "b"]) == 0
        capsys.readouterr()
        told = fail(capsys, folder, tmp_path / "p", "--to", "torch", "--key", "c")
        says(told, "begins with 'c.'", "a, b")


class TestNoWeights:
    def test_an_optimizer_alone(self, tmp_path):
        path = saved(tmp_path / "optimizer.pt", optimizer().state_dict())
        with pytest.raises(UserError, check=saying("state of an optimizer", "another file")):
            open_nested(path)

    def test_a_list(self, tmp_path):
        path = saved(tmp_path / "m.pt", (state(), {"lr": 1}, [state(5)]))
        with pytest.raises(UserError, check=saying("--key: 0, 2.0")):
            open_nested(path)
        assert first(open_nested(path, "2.0")) == 5

    def test_arguments_of_a_trainer_are_no_settings(self, tmp_path):
        training_args = pytest.importorskip("transformers.training_args")
        arguments = object.__new__(training_args.TrainingArguments)
        arguments.__dict__["learning_rate"] = 0.1
        nested = open_nested(saved(tmp_path / "m.pt", {"model": state(), "args": arguments}))
        assert nested.settings is None
        says(nested.notes, "transformers.training_args.TrainingArguments")


class TestFlatDicts:
    def test_plain_values_among_tensors(self, tmp_path):
        path = saved(tmp_path / "m.pt", state() | {"epoch": 3, "best": None})
        nested = open_nested(path)
        assert list(nested.tensors) == NAMES
        says(nested.notes, "left out", "epoch, best")

    def test_other_tensors_among_them_are_not_passed_over(self, tmp_path):
        for other in ({"w": torch.ones(1)}, [torch.ones(1)], Average(torch.ones(1))):
            path = saved(tmp_path / "m.pt", state() | {"other": other})
            with pytest.raises(UserError, match="holds more than tensors"):
                open_nested(path)


class TestOtherForms:
    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("place", ["", "model"])
    def test_tensors_that_are_no_plain_numbers(self, tmp_path, place):
        quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
        for value, what in (
            (quantized, "quantized by torch"),
            (torch.eye(2).to_sparse(), "to_dense()"),
        ):
            content = state() | {"x": value, "packed": (value, None)}
            path = saved(tmp_path / "m.pt", {place: content, "epoch": 1} if place else content)
            with pytest.raises(UserError, check=saying("2 weights are", "'x'", what)):
                open_nested(path)

    @pytest.mark.parametrize(
        ("endings", "what"),
        [
            (("weight", "SCB"), "8 bits by bitsandbytes"),
            (("weight", "weight.absmax", "weight.quant_map"), "4 bits by bitsandbytes"),
            (("qweight", "qzeros", "scales", "g_idx"), "GPTQ or AWQ"),
            (("weight_g", "weight_v"), "remove_weight_norm"),
            (
                ("parametrizations.weight.original0", "parametrizations.weight.original1"),
                "remove_parametrizations",
            ),
            (("weight_orig", "weight_mask"), "prune.remove"),
            (("flat_param_0",), "fairscale"),
            (("_flat_param",), "FullyShardedDataParallel"),
        ],
    )
    def test_names_that_show_it(self, tmp_path, capsys, endings, what):
        name = "model.encoder.layers.0.fc1"
        arrays = marian_weights()
        arrays = {n: x for n, x in arrays.items() if n != f"{name}.weight"}
        arrays |= {f"{name}.{ending}": np.ones(2, np.float32) for ending in endings}
        folder = write_marian(tmp_path / "m", arrays)
        says(fail(capsys, folder, tmp_path / "out", "--to", "torch"), f"{name}.{endings[0]}", what)
        assert main(["inspect", str(folder)]) == 0
        says(capsys.readouterr().out, "not known", what)

    def test_numbers_of_eight_bits(self, tmp_path, capsys):
        folder = write_marian(tmp_path / "m", marian_weights())
        (folder / "model.safetensors").unlink()
        state = {n: torch.from_numpy(x) for n, x in marian_weights().items()}
        name = "model.encoder.layers.0.fc1.weight"
        state[name] = state[name].to(torch.float8_e4m3fn)
        torch.save(state, folder / "pytorch_model.bin")
        error = fail(capsys, folder, tmp_path / "out", "--to", "torch")
        says(error, name, "8 bits (float8_e4m3fn)", "tensor.float()")

    @pytest.mark.filterwarnings("ignore")
    def test_a_whole_quantized_module(self, tmp_path):
        model = torch.nn.Transformer(4, 2, 1, 1, 8, batch_first=True)
        quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})
        path = saved(tmp_path / "m.pt", quantized)
        with pytest.raises(UserError, check=saying("encoder.layers.0.linear1.weight", "by torch")):
            open_nested(path)

    def test_a_part_of_zero_3(self, tmp_path):
        content = {"module": {name: torch.zeros(0) for name in NAMES}, "ds_version": "0.14"}
        with pytest.raises(UserError, check=saying("ZeRO stage 3", "zero_to_fp32.py")):
            open_nested(saved(tmp_path / "m.pt", content))
        for rank in range(2):
            saved(tmp_path / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt", content)
        (tmp_path / "m.pt").unlink()
        with pytest.raises(UserError, check=saying("ZeRO stage 3", "zero_to_fp32.py")) as caught:
            open_content(tmp_path)
        assert "name the one" not in str(caught.value)

    def test_shards_without_their_index(self, tmp_path):
        for number in (1, 2):
            weights = {f"w{number}": np.zeros(2)}
            save_file(weights, tmp_path / f"model-0000{number}-of-00002.safetensors")
        with pytest.raises(UserError, check=saying("shards of one model", "the index")) as caught:
            open_content(tmp_path)
        assert "name the one" not in str(caught.value)


class TestPlaces:
    def test_a_name_on_the_hub(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        told = fail(capsys, "Helsinki-NLP/opus-mt-en-de", "out", "--to", "flax")
        says(told, "Helsinki-NLP/opus-mt-en-de does not exist here", "HF_HUB_OFFLINE")
        for path in ("./a/b/c", "missing.pt", "a--b/c", "a/b..c", tmp_path / "a"):
            assert fail(capsys, path, "out", "--to", "flax").endswith("does not exist\n")

    def test_the_one_file_of_weights_in_a_folder(self, tmp_path, capsys):
        """DeepSpeed's name, beside what trainers leave."""
        folder = write_marian(tmp_path / "global_step10", marian_weights())
        (folder / "model.safetensors").unlink()
        weights = {name: torch.from_numpy(x) for name, x in marian_weights().items()}
        saved(folder / "mp_rank_00_model_states.pt", {"module": weights, "ds_version": "0.14"})
        saved(folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt", {"optimizer_state_dict": {}})
        saved(folder / "scheduler.bin", {"last_epoch": 1})
        assert main([str(folder), str(tmp_path / "out"), "--to", "torch"]) == 0
        says(capsys.readouterr().out, "mp_rank_00_model_states.pt", "the one file of weights")
        found = torch_transformer.weights(torch_transformer.load(tmp_path / "out"))
        np.testing.assert_array_equal(found["encoder.embedding.weight"], marian_weights()[SHARED])
        saved(folder / "other.ckpt", weights)
        says(
            fail(capsys, folder, tmp_path / "o", "--to", "torch"),
            "several files of weights",
            "other.ckpt",
        )

    def test_weights_behind_many_other_files(self, tmp_path):
        """Files that are none by their names do not count; of too many others none is missed."""
        for number in range(60):
            (tmp_path / f"a{number}.json").write_text("{}")
        saved(tmp_path / "first.ckpt", state())
        assert len(open_content(tmp_path).tensors) == len(NAMES)
        saved(tmp_path / "second.ckpt", state())
        with pytest.raises(UserError, check=saying("several files of weights", "second.ckpt")):
            open_content(tmp_path)
        for number in range(60):
            (tmp_path / f"g{number}.log").write_text("")
        with pytest.raises(UserError, check=saying("62 files", "up to 50", "name the one to read")):
            open_content(tmp_path)

    def test_many_shards_without_their_index(self, tmp_path):
        for number in range(60):
            (tmp_path / f"model-{number:05}-of-00060.safetensors").write_text("")
        with pytest.raises(UserError, check=saying("60 files", "shards of one model", "the index")):
            open_content(tmp_path)

    @pytest.mark.parametrize(
        ("name", "content", "what"),
        [
            ("tf_model.h5", b"\x89HDF\r\n", "TensorFlow"),
            ("encoder.onnx", b"x", "ONNX"),
            ("model.bin", b"\x06\0\0\0\x10\0TransformerSpec\0" + bytes(40), "CTranslate2"),
        ],
    )
    def test_what_is_in_a_folder_without_weights(self, tmp_path, capsys, name, content, what):
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / name).write_bytes(content)
        says(fail(capsys, tmp_path / "m", tmp_path / "out", "--to", "torch"), name, what)


def test_norms_of_old_files(tmp_path, capsys):
    """gamma and beta, there and back."""
    given = marian_weights()
    old = {".weight": ".gamma", ".bias": ".beta"}
    names = {
        n: n if "norm" not in n else n[: n.rindex(".")] + old[n[n.rindex(".") :]] for n in given
    }
    folder = write_marian(tmp_path / "m", {names[name]: x for name, x in given.items()})
    assert main([str(folder), str(tmp_path / "flax"), "--to", "flax"]) == 0
    count = sum(name != other for name, other in names.items())
    says(capsys.readouterr().out, f"{count} norms' weights and biases", "gamma and beta")
    assert main([str(tmp_path / "flax"), str(tmp_path / "back"), "--to", "marian"]) == 0
    found = open_safetensors(tmp_path / "back" / "model.safetensors")
    assert set(found) == set(names.values())
    for name, other in names.items():
        np.testing.assert_array_equal(found.read(other), given[name])
