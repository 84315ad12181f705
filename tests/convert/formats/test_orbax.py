"""The Orbax container: read with tensorstore alone, whichever way it was written."""

import json
import shutil
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from array_cases import assert_holds, various

from convert.core.tensors import Held
from convert.formats.content import nest
from convert.formats.orbax import is_orbax, open_orbax
from convert.formats.orbax_writer import write_orbax
from transformer_spec import UserError


def not_empty():
    """Orbax cannot hold arrays without elements."""
    return {name: array for name, array in various().items() if array.size}


class TestOrbax:
    def test_round_trip(self, tmp_path):
        pytest.importorskip("orbax.checkpoint")
        write_orbax(tmp_path / "o", Held(not_empty()))
        assert_holds(open_orbax(tmp_path / "o"), not_empty())

    def test_pytree_checkpointer_and_plain_zarr(self, tmp_path):
        ocp = pytest.importorskip("orbax.checkpoint")
        tree = nest(not_empty())
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "o", tree)
        assert_holds(open_orbax(tmp_path / "o"), not_empty())
        with ocp.PyTreeCheckpointer(use_ocdbt=False) as checkpointer:
            checkpointer.save(tmp_path / "p", tree)
        assert_holds(open_orbax(tmp_path / "p"), not_empty())

    def test_jax_arrays_and_zarr3(self, tmp_path):
        ocp = pytest.importorskip("orbax.checkpoint")
        jnp = pytest.importorskip("jax.numpy")
        handler = ocp.PyTreeCheckpointHandler(use_zarr3=True)
        with ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(tmp_path / "o", {"a": {"b": jnp.arange(5.0, dtype=jnp.bfloat16)}})
        expected = {"a.b": np.arange(5).astype(ml_dtypes.bfloat16)}
        assert_holds(open_orbax(tmp_path / "o"), expected)

    def test_reads_without_jax(self, tmp_path):
        pytest.importorskip("orbax.checkpoint")
        write_orbax(tmp_path / "o", Held({"a.b": np.arange(3.0)}))
        program = (
            "import sys\n"
            "for name in ('jax', 'flax', 'orbax', 'torch'): sys.modules[name] = None\n"
            "from pathlib import Path\n"
            "from convert.formats.orbax import open_orbax\n"
            f"print(open_orbax(Path({str(tmp_path / 'o')!r})).read('a.b').tolist())"
        )
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert result.stdout.strip() == "[0.0, 1.0, 2.0]", result.stderr

    def test_an_empty_array_is_refused_by_name(self, tmp_path):
        pytest.importorskip("orbax.checkpoint")
        with pytest.raises(UserError, match=r"cannot write .*zero size.*a\.b"):
            write_orbax(tmp_path / "o", Held({"a.b": np.zeros((0, 3))}))

    def test_missing_metadata(self, tmp_path):
        with pytest.raises(UserError, match="has no _METADATA: it is half-written"):
            open_orbax(tmp_path)

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"tree_metadata": 3}'])
    def test_broken_metadata(self, tmp_path, text):
        (tmp_path / "_METADATA").write_text(text)
        with pytest.raises(UserError, match="_METADATA is damaged"):
            open_orbax(tmp_path)

    @pytest.mark.parametrize("size", [0, 20])
    def test_every_truncated_file_is_noticed(self, tmp_path, size):
        """Whichever data file is cut or gone, reading everything raises one UserError."""
        pytest.importorskip("orbax.checkpoint")
        write_orbax(tmp_path / "o", Held(not_empty()))
        data = [p for p in (tmp_path / "o").rglob("*") if p.parent.name == "d"]
        top = [p for p in data if p.parent.parent.name == "o"]
        for path in [*top, tmp_path / "o" / "manifest.ocdbt"]:
            content = path.read_bytes()
            path.write_bytes(content[:size])
            with pytest.raises(UserError, match=str(tmp_path / "o")):
                open_orbax(tmp_path / "o").read_all()
            path.write_bytes(content)
        assert_holds(open_orbax(tmp_path / "o"), not_empty())

    def test_lost_numbers_are_not_zeros(self, tmp_path):
        pytest.importorskip("orbax.checkpoint")
        write_orbax(tmp_path / "o", Held({"a": np.random.default_rng(0).normal(size=(90, 90))}))
        values = tmp_path / "o" / "ocdbt.process_0" / "d"
        for path in values.iterdir():
            path.write_bytes(b"")
        with pytest.raises(UserError, match="cannot read 'a'|damaged"):
            open_orbax(tmp_path / "o").read("a")

    def test_missing_libraries_name_the_extra(self, tmp_path, monkeypatch):
        (tmp_path / "_METADATA").write_text('{"tree_metadata": {}}')
        monkeypatch.setitem(sys.modules, "tensorstore", None)
        with pytest.raises(UserError, match=r"needs tensorstore, .*twinformer\[jax\]"):
            open_orbax(tmp_path)
        with pytest.raises(UserError, match=r"needs tensorstore, .*twinformer\[torch\]"):
            write_orbax(tmp_path / "o", Held({}))

    def test_names_that_cannot_nest(self):
        for names in (["a", "a.b"], ["a.b", "a"]):
            with pytest.raises(UserError, match="beginning|array itself"):
                nest({name: np.zeros(1) for name in names})


class TestOlderVersions:
    """Their folders, made of those that today's library writes, and read by it."""

    TREE = {"a": {"b": np.arange(1.0, 4.0), "c": np.ones((2, 3), np.float32)}, "n": np.arange(2)}
    NAMED = {"a.b": TREE["a"]["b"], "a.c": TREE["a"]["c"], "n": TREE["n"]}

    def write(self, folder, **options):
        ocp = pytest.importorskip("orbax.checkpoint")
        with ocp.PyTreeCheckpointer(**options) as checkpointer:
            checkpointer.save(folder, self.TREE)
        for name in ("_sharding", "_CHECKPOINT_METADATA"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "array_metadatas", ignore_errors=True)
        return folder

    def with_tree(self, folder, tree):
        """The file of the whole tree, as the library's own code writes it."""
        msgpack_utils = pytest.importorskip("orbax.checkpoint.msgpack_utils")
        (folder / "_METADATA").unlink()
        (folder / "checkpoint").write_bytes(msgpack_utils.msgpack_serialize(tree))

    @pytest.mark.parametrize("ocdbt", [False, True])
    def test_small_arrays_inside_the_tree(self, tmp_path, ocdbt):
        folder = self.write(tmp_path / "o", use_ocdbt=ocdbt)
        inside = {"b": self.TREE["a"]["b"], "c": "PLACEHOLDER://a.c", "empty": {}, "none": None}
        self.with_tree(folder, {"a": inside, "n": "PLACEHOLDER://n", "step": 7})
        assert is_orbax(folder)
        assert_holds(open_orbax(folder), self.NAMED | {"step": np.array(7)})
        ocp = pytest.importorskip("orbax.checkpoint")
        theirs = ocp.PyTreeCheckpointer(use_ocdbt=ocdbt).restore(folder)
        np.testing.assert_array_equal(theirs["a"]["c"], self.TREE["a"]["c"])

    def test_everything_inside_the_tree(self, tmp_path):
        msgpack_utils = pytest.importorskip("orbax.checkpoint.msgpack_utils")
        tmp_path.joinpath("checkpoint").write_bytes(msgpack_utils.msgpack_serialize(self.TREE))
        assert is_orbax(tmp_path)
        assert_holds(open_orbax(tmp_path), self.NAMED)

    def test_a_folder_for_each_array(self, tmp_path):
        folder = self.write(tmp_path / "o", use_ocdbt=False)
        (folder / "_METADATA").unlink()
        assert is_orbax(folder)
        assert_holds(open_orbax(folder), self.NAMED)

    def test_where_arrays_lie_is_found_where_nothing_says_so(self, tmp_path):
        for ocdbt in (False, True):
            folder = self.write(tmp_path / f"{ocdbt}", use_ocdbt=ocdbt)
            content = json.loads((folder / "_METADATA").read_text())
            del content["use_ocdbt"]
            (folder / "_METADATA").write_text(json.dumps(content))
            assert_holds(open_orbax(folder), self.NAMED)

    def test_an_array_that_the_tree_names_and_that_is_gone(self, tmp_path):
        folder = self.write(tmp_path / "o", use_ocdbt=False)
        self.with_tree(folder, {"a": {"b": "PLACEHOLDER://a.b"}})
        shutil.rmtree(folder / "a.b")
        with pytest.raises(UserError, match="damaged or half-written"):
            open_orbax(folder)

    @pytest.mark.parametrize("left", ["_sharding", "array_metadatas", "manifest.ocdbt"])
    def test_a_newer_one_without_its_list_is_half_written(self, tmp_path, left):
        folder = self.write(tmp_path / "o", use_ocdbt=False)
        (folder / "_METADATA").unlink()
        (folder / left).touch()
        with pytest.raises(UserError, match="no _METADATA: it is half-written"):
            open_orbax(folder)


class TestValuesThatAreNoArrays:
    def test_empty_parts_are_passed_over(self, tmp_path):
        ocp = pytest.importorskip("orbax.checkpoint")
        optax = pytest.importorskip("optax")
        params = {"w": np.ones((2, 3), np.float32)}
        empty = {"none": None, "dict": {}, "list": [], "tuple": (), "state": optax.EmptyState()}
        masked = {"m": optax.MaskedNode(), "chain": optax.chain(optax.identity()).init(params)}
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "o", {"params": params, **empty, **masked, "step": 3})
        assert_holds(open_orbax(tmp_path / "o"), {"params.w": params["w"], "step": np.array(3)})

    def test_texts_are_passed_over(self, tmp_path):
        ocp = pytest.importorskip("orbax.checkpoint")
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "o", {"w": np.ones(3), "name": "mine"})
        assert_holds(open_orbax(tmp_path / "o"), {"w": np.ones(3)})


class TestMetadataThatLies:
    def write(self, folder, **options):
        """A checkpoint of plain zarr files, each array in a folder of its own."""
        ocp = pytest.importorskip("orbax.checkpoint")
        with ocp.PyTreeCheckpointer(use_ocdbt=False, **options) as checkpointer:
            checkpointer.save(folder, {"a": {"b": np.arange(1.0, 4.0)}, "z": np.zeros(3)})
        return folder

    def edit(self, path, change):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    def test_honest_metadata(self, tmp_path):
        path = self.write(tmp_path / "o")
        assert_holds(open_orbax(path), {"a.b": np.arange(1.0, 4.0), "z": np.zeros(3)})

    def test_a_lost_file_of_numbers_is_not_zeros(self, tmp_path):
        path = self.write(tmp_path / "o")
        (path / "a.b" / "0").unlink()
        with pytest.raises(UserError, match="cannot read 'a.b': .*missing"):
            open_orbax(path).read("a.b")

    def test_numbers_that_old_versions_did_not_store(self, tmp_path):
        """They left out arrays of nothing but zeros, and say nothing about it."""
        path = self.write(tmp_path / "o")
        (path / "z" / "0").unlink()
        name = "store_array_data_equal_to_fill_value"
        self.edit(path / "_METADATA", lambda content: content.pop(name))
        assert_holds(open_orbax(path), {"a.b": np.arange(1.0, 4.0), "z": np.zeros(3)})

    @pytest.mark.parametrize("name", ["..", "../o2/z", "/etc", "."])
    def test_names_that_lead_out_of_the_folder(self, tmp_path, name):
        path = self.write(tmp_path / "o")
        self.write(tmp_path / "o2")

        def rename(content):
            content["tree_metadata"]["('z',)"]["key_metadata"][0]["key"] = name

        self.edit(path / "_METADATA", rename)
        with pytest.raises(UserError, match="leads out of the folder"):
            open_orbax(path)

    def test_an_array_larger_than_any_memory(self, tmp_path):
        path = self.write(tmp_path / "o")
        self.edit(path / "z" / ".zarray", lambda content: content.update(shape=[10**13]))
        with pytest.raises(UserError, match=r"'z' .*float64 .*whole folder"):
            open_orbax(path)

    def test_two_arrays_of_one_name(self, tmp_path):
        path = self.write(tmp_path / "o")

        def repeat(content):
            tree = content["tree_metadata"]
            tree["('y',)"] = tree["('z',)"]

        self.edit(path / "_METADATA", repeat)
        with pytest.raises(UserError, match="two arrays are named 'z'"):
            open_orbax(path)
