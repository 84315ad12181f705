"""Pickles that try to run something, or whose headers lie."""

import argparse
import collections
import functools
import os
import pickle
import subprocess
import types
import zipfile

import numpy as np
import pytest
from array_cases import assert_holds
from pickle_cases import Calls, Storage, pickled, tensor_pickle, write_zip

from convert.formats.content import Unread
from convert.formats.torch_file.reader import open_torch_file, open_torch_pickle
from transformer_spec import UserError

torch = pytest.importorskip("torch", reason="the pickles name torch's functions")


def refuse(path, content, match):
    """Whatever the program is, one UserError says what it did."""
    with pytest.raises(UserError, match=match):
        open_torch_file(write_zip(path / "m.pt", content))


class TestCalls:
    @pytest.mark.parametrize("protocol", [0, 2, 4])
    @pytest.mark.parametrize(
        ("function", "arguments", "name"),
        [
            (os.system, ("touch /tmp/should-not-exist",), f"{os.system.__module__}.system"),
            (eval, ("1+1",), "builtins.eval"),
            (exec, ("1+1",), "builtins.exec"),
            (setattr, (1, "real", 2), "builtins.setattr"),
            (__import__, ("os",), "builtins.__import__"),
            (open, ("/tmp/should-not-exist", "w"), "io.open"),
            (subprocess.Popen, (["true"],), "(subprocess|commands).Popen"),
            (torch.load, ("x",), "torch.serialization.load"),
            (torch.storage._load_from_bytes, (b"x",), "torch.storage._load_from_bytes"),
            (np.load, ("x",), "numpy.load"),
            (pickle.loads, (b"N.",), "_?pickle.loads"),
        ],
    )
    def test_names_what_it_tried_to_call(self, tmp_path, function, arguments, name, protocol):
        content = pickle.dumps({"x": Calls(function, *arguments)}, protocol)
        refuse(tmp_path, content, f"it calls {name}, .*nothing was run")

    @pytest.mark.parametrize(("owner", "name"), [("os", "system"), ("subprocess", "run")])
    def test_functions_that_are_looked_up_before_the_call(self, tmp_path, owner, name):
        """Their name is that of the owner and the attribute, as old protocols write methods."""
        function = f"cbuiltins\ngetattr\n(ctorch\n{owner}\nV{name}\ntR".encode()
        refuse(tmp_path, function + b"(Vtrue\ntR.", f"it calls torch.{owner}.{name}, which runs")
        through = b"cfunctools\npartial\n(" + function + b"Vtrue\ntR)R."
        refuse(tmp_path, through, f"it calls torch.{owner}.{name}, which runs")

    @pytest.mark.parametrize("protocol", [0, 2, 4])
    @pytest.mark.parametrize(
        ("function", "arguments", "name"),
        [
            (getattr, (1, "real"), "builtins.getattr"),
            (dict.fromkeys, ([1],), "builtins.dict.fromkeys"),
            (os.path.join, ("a", "b"), "posixpath.join"),
            (os.stat_result, (range(10),), "os.stat_result"),
        ],
    )
    def test_harmless_calls_become_their_names(self, tmp_path, function, arguments, name, protocol):
        content = pickle.dumps({"x": Calls(function, *arguments)}, protocol)
        found = open_torch_file(write_zip(tmp_path / "m.pt", content)).content
        assert isinstance(found["x"], Unread) and found["x"].name == name

    def test_what_is_named_and_not_called(self, tmp_path):
        content = pickle.dumps({"x": functools.partial(os.system, "touch /tmp/x"), "f": eval}, 2)
        found = open_torch_file(write_zip(tmp_path / "m.pt", content)).content
        assert repr(found["x"]) == "<functools.partial, not read>"
        assert found["f"].name == "builtins.eval" and found["f"].arguments is None

    def test_in_the_state_of_a_namespace(self, tmp_path):
        run = Calls(os.system, "touch /tmp/should-not-exist")
        for kind in (argparse.Namespace, types.SimpleNamespace):
            refuse(tmp_path, pickled({"args": kind(a=[{"b": run}])}), "it calls posix.system")

    @pytest.mark.parametrize(
        "name", ["os.popen", "torch.os.system", "argparse.os.remove", "a.b.subprocess.run"]
    )
    def test_names_that_lead_through_other_modules(self, tmp_path, name):
        module, _, attribute = name.partition(".")
        text = [b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, attribute)]
        refuse(tmp_path, b"\x80\x04" + text[0] + text[1] + b"\x93)R.", f"it calls {name}")

    def test_names_that_are_no_text(self, tmp_path):
        refuse(tmp_path, b"\x80\x04]]\x93.", "STACK_GLOBAL requires str")

    @pytest.mark.parametrize("code", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"])
    def test_registered_extensions(self, tmp_path, code):
        refuse(tmp_path, b"\x80\x02" + code + b".", "uses the operation EXT")

    def test_calling_what_the_file_holds(self, tmp_path):
        refuse(tmp_path, b"\x80\x02X\x01\x00\x00\x00a)R.", "tries to call a str")
        refuse(tmp_path, b"\x80\x02ctorch\nFloatStorage\n)R.", "tries to call torch.FloatStorage")
        refuse(tmp_path, b"\x80\x02ctorch\nSize\n]R.", "calls torch.Size with a list for arguments")
        refuse(tmp_path, b"\x80\x02cbuiltins\nint\n)\x81.", "tries to call builtins.int")

    @pytest.mark.parametrize("name", ["collections OrderedDict", "torch._utils _rebuild_parameter"])
    def test_wrong_arguments(self, tmp_path, name):
        function = b"c" + name.replace(" ", "\n").encode() + b"\n"
        content = b"\x80\x02" + function + b"(K\x01K\x02K\x03tR."
        refuse(tmp_path, content, "wrong arguments|a parameter holds something else")

    @pytest.mark.parametrize("pid", [("module", 1, 2, 3), ("storage", 1), ("storage",) * 5, (3,)])
    def test_references_that_are_no_storage(self, tmp_path, pid):
        refuse(tmp_path, pickled([Storage(*pid)]), "no tensor storage")
        refuse(tmp_path, b"\x80\x02K\x03Q.", "no tensor storage")


class TestStates:
    """What BUILD could change: nothing but the values of a namespace or an array."""

    @pytest.mark.parametrize(
        "target",
        [
            b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nSize\n", b"X\x01\x00\x00\x00a", b"]",
            b"K\x01", b")", b"ctorch\nFloatStorage\n",
        ],
    )  # fmt: skip
    def test_nothing_else_has_a_state(self, tmp_path, target):
        state = b"}X\x04\x00\x00\x00callK\x01s"
        refuse(tmp_path, b"\x80\x02" + target + state + b"b.", "sets the attributes of")

    def test_attributes_of_a_dict_change_nothing(self, tmp_path):
        """An OrderedDict whose ``items`` and ``keys`` are data is read as if it had none."""
        state = {"items": 3, "keys": "no", "__class__": 1}
        hidden = Calls(collections.OrderedDict, [["x", 1]], state=state)
        path = write_zip(tmp_path / "m.pt", pickled({"d": hidden}))
        assert open_torch_file(path).content == {"d": {"x": 1}}

    @pytest.mark.parametrize("kind", [argparse.Namespace, types.SimpleNamespace])
    @pytest.mark.parametrize(
        "state", [[1], (None, {"a": 1}), ({"a": 1}, {"b": 2}), {1: 2}, {(1,): 2}, "a", 3]
    )
    def test_states_of_a_namespace_that_are_no_names_and_values(self, tmp_path, kind, state):
        content = pickled(Calls(kind, state=state))
        refuse(tmp_path, content, "namespace has a state that is no dict of names and values")

    def test_special_names_in_a_namespace_are_data(self, tmp_path):
        names = ["__class__", "__dict__", "__init__", "__reduce__", "items", "keys", "kind"]
        content = pickled(Calls(argparse.Namespace, state=dict.fromkeys(names, 1)))
        found = open_torch_file(write_zip(tmp_path / "m.pt", content)).content
        assert dict(found.items()) == dict.fromkeys(names, 1)
        assert found.kind == "argparse.Namespace" and type(found).__name__ == "Namespace"

    def test_a_namespace_made_with_arguments(self, tmp_path):
        refuse(tmp_path, pickled(Calls(argparse.Namespace, 1)), "wrong arguments")

    def test_a_namespace_is_no_dict_to_write_into(self, tmp_path):
        content = b"\x80\x02cargparse\nNamespace\n)\x81X\x01\x00\x00\x00aK\x01s."
        refuse(tmp_path, content, "calls argparse.Namespace with wrong arguments")

    @pytest.mark.parametrize("state", [(1,), 3, (1, (2,), "O", False, b"12345678")])
    def test_arrays_with_wrong_states(self, tmp_path, state):
        make = np._core.multiarray._reconstruct
        content = pickled(Calls(make, np.ndarray, (0,), b"b", state=state))
        refuse(tmp_path, content, "NumPy array|wrong arguments")

    @pytest.mark.parametrize("shape", [(3,), (2**62,), (-1,), (2, 2), (2.0,), "ab", (2,) * 70])
    def test_arrays_with_wrong_shapes(self, tmp_path, shape):
        make, kind = np._core.multiarray._reconstruct, np.dtype(np.float32)
        state = (1, shape, kind, False, bytes(8))
        content = pickled(Calls(make, np.ndarray, (0,), b"b", state=state))
        refuse(tmp_path, content, "m.pt is not read")

    @pytest.mark.parametrize("text", ["O", "U4", "V8", "f4,f4", "(2,)f4", "m8", "f16", "x" * 99])
    def test_types_that_are_no_plain_numbers(self, tmp_path, text):
        """They are named, and so is an array of them: neither is made."""
        make, kind = np._core.multiarray._reconstruct, Calls(np.dtype, text, False, True)
        array = Calls(make, np.ndarray, (0,), b"b", state=(1, (1,), kind, False, b"12345678"))
        path = write_zip(tmp_path / "m.pt", pickled({"kind": kind, "array": array}))
        found = open_torch_file(path).content
        assert [part.name for part in found.values()] == ["numpy.dtype", "numpy.ndarray"]


class TestHeaders:
    @pytest.mark.parametrize(
        "content",
        [
            b"", b"garbage", b"\x80\x02.", b"\x80\x02}", b"\x80\xff}.", b"\x80\x020.",
            b"\x80\x02(.", b"\x80\x02}}.", b"\x80\x02t.", b"\x80\x02h\x05.", b"\x80\x02K\x01a.",
            b"\x80\x02](K\x01.", b"\x80\x02}(K\x01u.", b"\x80\x02}K\x01a.",
            b"\x80\x02]K\x01K\x02s.", b"\x80\x022.", b"\x80\x02q\x00.", b"\x80\x02NQ.", b"Pa\n.",
            b"\x80\x02)o.", b"\x80\x02\x97.",
        ],
    )  # fmt: skip
    def test_garbage(self, tmp_path, content):
        refuse(tmp_path, content, "is not read: .")

    def test_honest_header_is_read(self, tmp_path):
        data = np.array([3, 5], np.float32)
        path = write_zip(tmp_path / "m.pt", tensor_pickle(), _0=data.tobytes())
        assert_holds(open_torch_pickle(path), {"x": data})

    @pytest.mark.parametrize(
        "header",
        [
            {"offset": 1}, {"shape": (3,)}, {"strides": (2,)}, {"count": 3}, {"count": 0},
            {"shape": (2, 2), "strides": (1, 1)}, {"offset": 2**61}, {"strides": (2**61,)},
        ],
    )  # fmt: skip
    def test_reaching_outside_the_storage(self, tmp_path, header):
        path = write_zip(tmp_path / "m.pt", tensor_pickle(**header), _0=bytes(8))
        with pytest.raises(UserError, match="cannot read .*'x'"):
            open_torch_pickle(path)

    @pytest.mark.parametrize(
        "header",
        [
            {"offset": -1}, {"shape": (-2,)}, {"strides": (-1,)}, {"shape": (2.0,)}, {"count": -2},
            {"shape": (2, 1)}, {"shape": (2**63,)}, {"shape": (2**40, 2**40), "strides": (0, 0)},
            {"shape": 2}, {"strides": None}, {"offset": True}, {"count": 2**80},
            {"shape": (1,) * 70, "strides": (1,) * 70},
        ],
    )  # fmt: skip
    def test_impossible_numbers(self, tmp_path, header):
        path = write_zip(tmp_path / "m.pt", tensor_pickle(**header), _0=bytes(8))
        with pytest.raises(UserError, match="is not read"):
            open_torch_pickle(path)

    def test_an_empty_tensor_needs_no_numbers(self, tmp_path):
        content = tensor_pickle(offset=2**61, shape=(0, 2**40), strides=(1, 1), count=0)
        path = write_zip(tmp_path / "m.pt", content, _0=b"")
        assert open_torch_pickle(path).read("x").shape == (0, 2**40)

    def test_compressed_entries_are_refused(self, tmp_path):
        path = tmp_path / "m.pt"
        write_zip(path, tensor_pickle(), zipfile.ZIP_DEFLATED, _0=bytes(8))
        with pytest.raises(UserError, match="is compressed"):
            open_torch_pickle(path)

    def test_two_archives_in_one(self, tmp_path):
        path = write_zip(tmp_path / "m.pt", tensor_pickle(), _0=bytes(8))
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("other/data.pkl", tensor_pickle())
        with pytest.raises(UserError, match="'data.pkl' in two folders"):
            open_torch_pickle(path)
