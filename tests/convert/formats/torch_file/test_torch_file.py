"""Everything that is in a checkpoint of a training run, as plain data."""

import argparse
import collections
import pathlib
import random
import struct
import types

import numpy as np
import pytest
from pickle_cases import Calls, Storage, pickled, write_zip

from convert.checkpoints.reading import open_content
from convert.formats.content import Leaf, Namespace, Unread, is_array
from convert.formats.torch_file.reader import open_torch_file
from transformer_spec import UserError

torch = pytest.importorskip("torch", reason="torch writes the pickles these tests read")

BOTH_FORMS = pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])


def opened(path, content, as_zip=True, **options):
    torch.save(content, path, _use_new_zipfile_serialization=as_zip, **options)
    return open_torch_file(path)


def trained():
    """A model after two steps of AdamW, one of its parameters frozen."""
    model = torch.nn.Linear(3, 2)
    model.extra = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        model(torch.ones(5, 3)).sum().backward()
        optimizer.step()
    return model, optimizer


@BOTH_FORMS
def test_the_state_of_an_optimizer_keeps_its_integer_keys(tmp_path, as_zip):
    model, optimizer = trained()
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 2}
    file = opened(tmp_path / "m.pt", content, as_zip)
    state = file.content["optimizer"]["state"]
    assert list(state) == [0, 1]
    for index, moments in optimizer.state_dict()["state"].items():
        assert list(state[index]) == ["step", "exp_avg", "exp_avg_sq"]
        for name, expected in moments.items():
            np.testing.assert_array_equal(file.read(state[index][name]), expected.numpy())
    assert file.content["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    assert type(file.content["optimizer"]["param_groups"][0]["betas"]) is tuple
    assert file.content["epoch"] == 2


def test_a_step_that_is_a_number(tmp_path):
    content = {"state": {0: {"step": 7, "exp_avg": torch.ones(2)}, 5: {"step": 7.0}}}
    state = opened(tmp_path / "m.pt", content).content["state"]
    assert state[0]["step"] == 7 and type(state[0]["step"]) is int
    assert state[5] == {"step": 7.0}


def settings():
    """Namespaces as training scripts keep them, one in another."""
    inner = types.SimpleNamespace(rate=0.5, sizes=[1, 2], other=None)
    return argparse.Namespace(
        arch="transformer", inner=inner, device=torch.device("cuda", 1), dtype=torch.float16,
        path=pathlib.PurePosixPath("/data/x"), shape=torch.Size([2, 3]), layout=torch.strided,
        place=torch.device("cpu"), seen={3, 4}, raw=b"\xffab", z=1 + 2j, big=-(2**40),
        counts=collections.Counter("aab"), groups=collections.defaultdict(list, a=[1]),
    )  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 4, 5])
@BOTH_FORMS
def test_namespaces_are_plain_data(tmp_path, as_zip, protocol):
    file = opened(tmp_path / "m.pt", {"args": settings()}, as_zip, pickle_protocol=protocol)
    found = file.content["args"]
    assert isinstance(found, Namespace) and found.kind == "argparse.Namespace"
    assert found == {
        "arch": "transformer", "inner": {"rate": 0.5, "sizes": [1, 2], "other": None},
        "device": "cuda:1", "dtype": "torch.float16", "path": "/data/x", "shape": (2, 3),
        "layout": "torch.strided", "place": "cpu", "seen": {3, 4}, "raw": b"\xffab", "z": 1 + 2j,
        "big": -(2**40), "counts": {"a": 2, "b": 1}, "groups": {"a": [1]},
    }  # fmt: skip
    assert found["inner"].kind == "types.SimpleNamespace"


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_protocol_of_plain_data(tmp_path, protocol):
    content = {
        "n": argparse.Namespace(a=1, b=[True, False, None]), "f": 1.5, "big": 2**70, "neg": -3,
        "text": "ü\n'", "l": [1, (2,), (), (1, 2, 3, 4)], "s": {"x"}, "fs": frozenset([1]),
        "empty": [[], {}, set()], "v": types.SimpleNamespace(),
    }  # fmt: skip
    path = write_zip(tmp_path / "m.pt", pickled(content, protocol))
    expected = content | {"n": {"a": 1, "b": [True, False, None]}, "v": {}}
    assert open_torch_file(path).content == expected


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numbers_of_numpy(tmp_path, protocol):
    content = {
        "loss": np.float64(0.1), "half": np.float16(1.5), "count": np.int32(-7),
        "ok": np.bool_(True),
        "big": np.array([3, 4], ">i2"), "z": np.complex64(1j),
        "rows": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "none": np.zeros((0, 2), np.int8),
    }  # fmt: skip
    found = opened(tmp_path / "m.pt", content, pickle_protocol=protocol).content
    assert {name: found[name] for name in ("loss", "half", "count", "ok", "z")} == {
        "loss": 0.1, "half": 1.5, "count": -7, "ok": True, "z": 1j,
    }  # fmt: skip
    assert [type(found[name]) for name in ("loss", "count", "ok")] == [float, int, bool]
    for name in ("big", "rows", "none"):
        np.testing.assert_array_equal(found[name], content[name])
        assert found[name].dtype == content[name].dtype.newbyteorder("=")


def test_arrays_of_numpy_count_as_tensors(tmp_path):
    file = opened(tmp_path / "m.pt", {"x": torch.ones(2), "y": np.arange(3)})
    tensors = file.tensors()
    assert tensors["y"] == ((3,), np.dtype(np.int64))
    read = tensors.read("y")
    read[0] = 9
    np.testing.assert_array_equal(tensors.read("y"), [0, 1, 2])


@pytest.mark.parametrize(
    "value", [np.array(["a"]), np.array([object()]), np.zeros(1, [("a", "f4")]), np.str_("a")]
)
def test_other_data_of_numpy_is_named(tmp_path, value):
    found = opened(tmp_path / "m.pt", {"x": value, "w": torch.ones(2)}).content
    assert isinstance(found["x"], Unread) and found["x"].name == "numpy.ndarray"
    assert is_array(found["w"])


def test_tensors_of_any_dict(tmp_path):
    content = {
        "model": {"enc": {"w": torch.ones(2)}, "list": [torch.zeros(1), {"b": torch.zeros(3)}]},
        "step": 3, "flat": {"a.b": torch.ones(1), 5: torch.ones(2)},
    }  # fmt: skip
    file = opened(tmp_path / "m.pt", content)
    assert list(file.tensors(file.content["model"], nested=True)) == ["enc.w", "list.0", "list.1.b"]
    assert list(file.tensors(file.content["flat"])) == ["a.b", "5"]
    assert set(file.dicts()) == {"model.enc", "model.list.1", "flat"}
    with pytest.raises(UserError, match="holds more than tensors: step"):
        file.tensors(nested=True)
    with pytest.raises(UserError, match="holds more than tensors: enc, list"):
        file.tensors(file.content["model"])
    np.testing.assert_array_equal(file.read(file.content["model"]["enc"]["w"]), [1, 1])


def test_parameters_with_attributes_of_their_own(tmp_path):
    parameter = torch.nn.Parameter(torch.arange(3.0))
    parameter.expert = True
    found = opened(tmp_path / "m.pt", {"x": parameter})
    np.testing.assert_array_equal(found.tensors().read("x"), [0, 1, 2])


def test_a_bare_storage_is_a_flat_tensor(tmp_path):
    found = opened(tmp_path / "m.pt", {"x": torch.arange(3).untyped_storage()}, as_zip=False)
    assert is_array(found.content["x"]) and found.content["x"].shape == (24,)


def old_file(path, content, keys, storages):
    """The form of PyTorch 0.1 to 1.5, its parts given as they are."""
    machine = {"protocol_version": 1000, "little_endian": True, "type_sizes": {"long": 4}}
    parts = [pickled(part) for part in (0x1950A86A20F9469CFC6C, 1001, machine, content, keys)]
    raw = [struct.pack("<q", count) + data for count, data in storages]
    path.write_bytes(b"".join(parts + raw))
    return path


def old_tensor(rebuild, *pid):
    storage = Storage("storage", torch.FloatStorage, *pid)
    rest = () if rebuild is torch._utils._rebuild_tensor else (False, collections.OrderedDict())
    return Calls(rebuild, storage, 1, (2,), (1,), *rest)


class TestOldForm:
    values = np.arange(6, dtype=np.float32)

    def test_views_of_storages(self, tmp_path):
        """Before PyTorch 0.4 a storage could be a view of another one."""
        view = old_tensor(torch._utils._rebuild_tensor, "root", "cpu", 6, ("view", 2, 4))
        whole = old_tensor(torch._utils._rebuild_tensor_v2, "root", "cpu", 6)
        content = {"view": view, "whole": whole}
        path = old_file(tmp_path / "m.pt", content, ["root"], [(6, self.values.tobytes())])
        tensors = open_torch_file(path).tensors()
        np.testing.assert_array_equal(tensors.read("view"), [3, 4])
        np.testing.assert_array_equal(tensors.read("whole"), [1, 2])

    def test_text_of_python_2(self, tmp_path):
        content = b"\x80\x02}(U\x05modelU\x02\xc3\xbcU\x03rawU\x01\xffu."
        path = write_zip(tmp_path / "m.pt", content)
        assert open_torch_file(path).content == {"model": "ü", "raw": b"\xff"}

    @pytest.mark.parametrize(
        ("keys", "storages", "message"),
        [
            (["0"], [(6, b"")], "truncated: its storages end at"),
            (["0"], [(6, bytes(25))], "damaged: its storages end at"),
            (["0"], [(2**60, bytes(24))], "truncated"),
            (["0"], [(-1, b"")], "damaged: a storage has -1"),
            (["0"], [], "truncated: storages are missing"),
            (["0"], [(2, bytes(8))], "'x' is missing or cut off"),
            ([], [], "'x' is missing or cut off"),
            (["0", "0"], [(6, bytes(24))] * 2, "'0' comes twice"),
            (["0", "1"], [(6, bytes(24))] * 2, "'1' .*belongs to nothing"),
            ("0", [(6, bytes(24))], "no list of storages"),
            ([0], [(6, bytes(24))], "no list of storages"),
        ],
    )
    def test_storages_that_do_not_fit(self, tmp_path, keys, storages, message):
        content = {"x": old_tensor(torch._utils._rebuild_tensor_v2, "0", "cpu", 6)}
        path = old_file(tmp_path / "m.pt", content, keys, storages)
        with pytest.raises(UserError, match=message):
            open_torch_file(path)

    def test_two_sizes_of_number_in_one_storage(self, tmp_path):
        first = Storage("storage", torch.FloatStorage, "0", "cpu", 4)
        second = Storage("storage", torch.DoubleStorage, "0", "cpu", 2)
        path = old_file(tmp_path / "m.pt", [first, second], ["0"], [(4, bytes(16))])
        with pytest.raises(UserError, match="'0' holds numbers of two sizes"):
            open_torch_file(path)

    def test_big_endian_machines(self, tmp_path):
        torch.save({}, tmp_path / "m.pt", _use_new_zipfile_serialization=False)
        content = (tmp_path / "m.pt").read_bytes()
        at = content.index(b"little_endian")
        flag = content.index(b"\x88", at)
        (tmp_path / "m.pt").write_bytes(content[:flag] + b"\x89" + content[flag + 1 :])
        with pytest.raises(UserError, match="big-endian"):
            open_torch_file(tmp_path / "m.pt")


def test_random_states(tmp_path):
    content = {"python": random.getstate(), "torch": torch.get_rng_state()}
    found = opened(tmp_path / "m.pt", content).content
    assert found["python"] == random.getstate()
    assert isinstance(found["torch"], Leaf)


def test_a_tensor_alone_is_called_that(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "m.pt")
    for key in (None, "model"):
        with pytest.raises(UserError, match="it holds one tensor without a name"):
            open_content(tmp_path / "m.pt", key)
