"""Orbax folders that are written some arrays at a time: what Orbax itself makes of them."""

import json
import os

import numpy as np
import pytest
from array_cases import assert_holds, various

from convert.core.tensors import Header, Held, Tensors
from convert.formats import orbax_writer
from convert.formats.content import nest
from convert.formats.orbax import open_orbax
from convert.formats.orbax_writer import write_orbax
from transformer_spec import UserError

pytest.importorskip("tensorstore")
TREE = {
    "params.a.kernel": np.arange(6.0).reshape(2, 3).T,
    "params.b.bias": np.zeros(5, np.float32),
    "opt_state.0.mu.a.kernel": np.ones((3, 2)),
    "opt_state.0.nu.a.kernel": np.full((3, 2), 2.0),
    "opt_state.0.count": np.array(3, np.int32),
    "raw.a.kernel": np.full((3, 2), 4.0),
}


class Failing(Tensors):
    """Arrays of which one cannot be read."""

    def __init__(self, bad: str) -> None:
        headers = {name: Header(array.shape, array.dtype) for name, array in TREE.items()}
        super().__init__("these", headers)
        self.bad, self.asked = bad, []

    def read(self, name: str) -> np.ndarray:
        self.asked.append(name)
        if name == self.bad:
            raise UserError(f"{name} is damaged")
        return TREE[name]


def test_orbax_reads_what_it_would_have_written(tmp_path) -> None:
    ocp, jax = pytest.importorskip("orbax.checkpoint"), pytest.importorskip("jax")
    write_orbax(tmp_path / "ours", Held(TREE))
    tree = orbax_writer.with_optax_state(nest(TREE))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "theirs", tree)
    with ocp.StandardCheckpointer() as checkpointer:
        found = checkpointer.restore(tmp_path / "ours", tree)
        jax.tree.map(np.testing.assert_array_equal, found, tree)
        assert jax.tree.structure(found) == jax.tree.structure(tree)
        untold = checkpointer.restore(tmp_path / "ours")
    np.testing.assert_array_equal(untold["opt_state"][0]["mu"]["a"]["kernel"], np.ones((3, 2)))
    lists = [(tmp_path / place / "_METADATA").read_text() for place in ("ours", "theirs")]
    assert json.loads(lists[0]) == json.loads(lists[1])
    names = [{p.name for p in (tmp_path / place).iterdir()} for place in ("ours", "theirs")]
    assert names[0] == names[1]
    said = [
        json.loads((tmp_path / place / "_CHECKPOINT_METADATA").read_text())
        for place in ("ours", "theirs")
    ]
    assert said[0].keys() == said[1].keys() and said[0]["item_handlers"] == said[1]["item_handlers"]


@pytest.mark.parametrize("together", [1, 100, 2**20])
def test_whatever_is_written_at_once(tmp_path, monkeypatch, together: int) -> None:
    monkeypatch.setattr(orbax_writer, "TOGETHER", together)
    arrays = {name: array for name, array in various().items() if array.size}
    write_orbax(tmp_path / "o", Held(arrays))
    assert_holds(open_orbax(tmp_path / "o"), arrays)


def test_each_array_is_read_once_and_by_this_thread(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(orbax_writer, "TOGETHER", 50)
    tensors = Failing("none")
    write_orbax(tmp_path / "o", tensors)
    assert tensors.asked == list(TREE)


@pytest.mark.parametrize("together", [1, 2**20])
def test_an_array_that_cannot_be_read_leaves_nothing(tmp_path, monkeypatch, together: int) -> None:
    monkeypatch.setattr(orbax_writer, "TOGETHER", together)
    with pytest.raises(UserError, match="^opt_state.0.count is damaged$"):
        write_orbax(tmp_path / "o", Failing("opt_state.0.count"))
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_in_no_way(tmp_path) -> None:
    left = tmp_path / "o.orbax-checkpoint-tmp" / "ocdbt.process_0"
    left.mkdir(parents=True)
    (left / "manifest.ocdbt").write_bytes(b"half")
    write_orbax(tmp_path / "o", Held(TREE))
    assert os.listdir(tmp_path) == ["o"]
    with pytest.raises(UserError, match="exists already"):
        write_orbax(tmp_path / "o", Held(TREE))


def test_names_that_do_not_nest(tmp_path) -> None:
    with pytest.raises(UserError, match="array itself"):
        write_orbax(tmp_path / "o", Held({"a": np.ones(1), "a.b": np.ones(1)}))
