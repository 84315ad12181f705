"""Objects of classes that are not made here: named, gone through by keys, and never run."""

import argparse
import collections
import datetime
import enum
import functools
import pickle
import random

import numpy as np
import pytest
from messages import saying
from pickle_cases import Calls, Storage, pickled, write_zip

from convert.formats.content import Unread, is_array, unread
from convert.formats.torch_file.modules import is_module
from convert.formats.torch_file.reader import open_torch_file, open_torch_pickle
from transformer_spec import UserError

torch = pytest.importorskip("torch", reason="torch writes the pickles these tests read")

BOTH_FORMS = pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3, 4, 5])


class Stage(enum.Enum):
    FIT = "fit"


class Options(argparse.Namespace):
    """A Namespace of someone's own."""


class Items(dict):
    """A dict of someone's own, with attributes beside its items."""


class Sizes(list):
    pass


class Slotted:
    __slots__ = ("weights",)


class New:
    """An object that is made with an argument by name."""

    def __new__(cls, *, size=0):
        made = super().__new__(cls)
        made.size = size
        return made

    def __getnewargs_ex__(self):
        return (), {"size": self.size}


class Holder:
    """An object that says if anything of it is made."""

    made = 0

    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def __setstate__(self, state):
        Holder.made += 1


def opened(path, content, as_zip=True, protocol=2):
    torch.save(content, path, _use_new_zipfile_serialization=as_zip, pickle_protocol=protocol)
    return open_torch_file(path)


def things():
    name = __name__
    return {
        "datetime.datetime": datetime.datetime(2024, 1, 2),
        "datetime.timedelta": datetime.timedelta(3),
        f"{name}.Stage": Stage.FIT,
        f"{name}.Options": Options(lr=1),
        f"{name}.Items": Items(a=1),
        f"{name}.Sizes": Sizes([1, 2]),
        f"{name}.Holder": Holder(a=[Holder()]),
        "functools.partial": functools.partial(print, 1),
        "builtins.slice": slice(1, 2),
        "builtins.range": range(3),
        "collections.deque": collections.deque([1], maxlen=2),
        "random.Random": random.Random(0),
        "numpy.random._pickle.__generator_ctor": np.random.default_rng(0),
        "numpy.ndarray": np.array([datetime.date(2024, 1, 1), None]),
        "decimal.Decimal": __import__("decimal").Decimal("0.5"),
        "torch.optim.adamw.AdamW": torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))]),
    }


@PROTOCOLS
@BOTH_FORMS
def test_what_lies_beside_weights(tmp_path, as_zip, protocol):
    """Everything is named in the order in which it lies there, and the weights are read."""
    weights, Holder.made = {"w": torch.arange(3.0)}, 0
    file = opened(tmp_path / "m.pt", {**things(), "model": weights}, as_zip, protocol)
    found = [part.name for part in unread(file.content)]
    enums = {"builtins.getattr": f"{__name__}.Stage"}  # how some versions of Python pickle members
    assert [enums.get(name, name) for name in found] == list(things())
    np.testing.assert_array_equal(file.tensors(file.content["model"]).read("w"), [0, 1, 2])
    assert Holder.made == 0


@PROTOCOLS
def test_what_is_inside_is_reached_by_keys(tmp_path, protocol):
    w = torch.arange(3.0)
    slotted = Slotted()
    slotted.weights = {"w": w + 7}
    items = Items(w=w + 5)
    items.note = "attributes are no items"
    content = {
        "trainer": Holder(ema=Holder(shadow={"w": w + 1}), epochs=[{"w": w + 2}], size=(3, 4)),
        "options": Options(model={"w": w + 3}, inner=Options(layers=6)),
        "list": Sizes([{"w": w + 4}]),
        "items": items, "slots": slotted, "new": New(size=3),
        "flat": {"ema.w": w + 6, "model.w": w},
    }  # fmt: skip
    file = opened(tmp_path / "m.pt", content, protocol=protocol)
    keys = {
        "trainer.ema.shadow": 1, "trainer.epochs.0": 2, "options.model": 3, "list.0": 4, "items": 5,
        "flat.ema": 6, "flat.model": 0, "slots.weights": 7,
    }  # fmt: skip
    for key, more in keys.items():
        np.testing.assert_array_equal(
            open_torch_pickle(tmp_path / "m.pt", key).read("w"), (w + more).numpy()
        )
    assert file.at("options.inner.layers") == 6 and file.at("trainer.size") == (3, 4)
    assert file.at("new.size") == 3
    with pytest.raises(UserError, check=saying("no key 'trainer.x'", "trainer.ema.shadow")):
        file.at("trainer.x")
    assert {"trainer.ema.shadow", "options.model", "items", "slots.weights"} <= set(file.dicts())


def test_objects_that_hold_each_other(tmp_path):
    """A cycle through objects is no fault; arrays in it are checked and read once."""
    parent = Holder(weights={"w": torch.ones(2)})
    parent.child = Holder(parent=parent, all=[parent])
    file = opened(tmp_path / "m.pt", {"trainer": parent})
    assert list(file.dicts()) == ["trainer.weights"]
    trainer = file.content["trainer"]
    assert file.at("trainer.child.parent") is trainer and file.at("trainer.child.all.0") is trainer
    np.testing.assert_array_equal(file.read(file.at("trainer.child.parent.weights.w")), [1, 1])


def test_what_is_damaged_inside_an_object_blocks_nothing(tmp_path):
    """A list that contains itself has no plain form; beside objects it is a fault."""
    endless: list = []
    endless.append(endless)
    file = opened(tmp_path / "m.pt", {"w": torch.ones(2), "x": Holder(endless=endless, good=1)})
    assert file.content["x"].attributes == {} and is_array(file.content["w"])
    with pytest.raises(UserError, match="contains itself"):
        opened(tmp_path / "n.pt", {"x": endless})


def test_keys_that_are_objects(tmp_path):
    """Old versions of Lightning file callbacks under their classes."""
    content = {Stage: 1, Stage.FIT: 2, np.int64(3): 4, torch.float32: 5, (1, Stage): 6, int: 7}
    found = opened(tmp_path / "m.pt", {"callbacks": content, "set": {Stage}}).content
    plain = {key: value for key, value in found["callbacks"].items() if not unreadable(key)}
    assert plain == {3: 4, "torch.float32": 5, "builtins.int": 7}
    assert [value for key, value in found["callbacks"].items() if unreadable(key)] == [1, 2, 6]
    (only,) = found["set"]
    assert only.name == f"{__name__}.Stage" and only.arguments is None


def unreadable(key):
    return any(isinstance(part, Unread) for part in (key if type(key) is tuple else (key,)))


def test_keys_that_would_be_one(tmp_path):
    with pytest.raises(UserError, match="two keys that are one"):
        opened(tmp_path / "m.pt", {torch.float32: 1, "torch.float32": 2})


def test_tensors_inside_objects_are_checked(tmp_path):
    """A tensor that reaches beyond its numbers is a fault wherever it is."""
    storage = Storage("storage", torch.FloatStorage, "0", "cpu", 2)
    arguments = storage, 0, (3,), (1,), False, collections.OrderedDict()
    tensor = Calls(torch._utils._rebuild_tensor_v2, *arguments)
    inside = Calls(Holder, state={"best": [Calls(Holder, tensor)]})
    path = write_zip(tmp_path / "m.pt", pickled({"trainer": inside}), _0=bytes(8))
    with pytest.raises(UserError, check=saying("cannot read", "Holder.0", "reaches beyond")):
        open_torch_file(path)


class Block(torch.nn.Module):
    """Parameters, buffers of both kinds, a module that is missing, one that is there twice."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(2, 3)
        self.tied = self.fc
        self.none = None
        self.scale = torch.nn.Parameter(torch.ones(3))
        self.register_parameter("absent", None)
        self.register_buffer("kept", torch.arange(2))
        self.register_buffer("lost", torch.arange(2), persistent=False)
        self.layers = torch.nn.ModuleList([torch.nn.LayerNorm(3), torch.nn.Identity()])
        self.config = Options(width=3)


@PROTOCOLS
@BOTH_FORMS
def test_a_whole_module_is_its_state_dict(tmp_path, as_zip, protocol):
    block = Block()
    file = opened(tmp_path / "m.pt", block, as_zip, protocol)
    assert is_module(file.content)
    expected = {name: tensor.numpy() for name, tensor in block.state_dict().items()}
    found = file.tensors()
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found.read(name), array)
    assert list(file.tensors(file.at("layers"))) == ["0.weight", "0.bias"]
    assert file.at("config.width") == 3


def test_a_module_that_contains_itself(tmp_path):
    block = torch.nn.Module()
    block._modules["self"] = block
    with pytest.raises(UserError, match="nested more than 100 deep"):
        opened(tmp_path / "m.pt", block).tensors()


def test_a_pickle_of_arrays(tmp_path):
    """``pickle.dump`` of arrays is read; of tensors it is said to be what it is."""
    arrays = {"w": np.arange(6.0).reshape(2, 3), "b": np.ones(2, np.float32)}
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(arrays))
    found = open_torch_pickle(tmp_path / "m.pkl")
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.read(name), array)
    (tmp_path / "t.pkl").write_bytes(pickle.dumps({"w": torch.ones(2)}))
    with pytest.raises(UserError, check=saying("pickle.dump", "torch.save what is in it")):
        open_torch_pickle(tmp_path / "t.pkl")
