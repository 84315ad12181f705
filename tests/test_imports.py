"""The one rule: each package imports without the frameworks that are not its own."""

import subprocess
import sys

import pytest

BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Block())
import importlib
for module in {modules!r}:
    importlib.import_module(module)
"""

TORCH, JAX = {"torch"}, {"jax", "jaxlib", "flax", "optax", "orbax"}
ABOVE = {"torch_transformer", "flax_transformer", "parity", "twinformer", "train", "translate"}

CASES = {
    "transformer_spec": (
        ["transformer_spec"],
        TORCH | JAX | ABOVE | {"convert", "training_recipe"},
    ),
    "training_recipe": (
        ["training_recipe.options.flags", "training_recipe.preparation", "training_recipe.backend"],
        TORCH | JAX | ABOVE | {"convert"},
    ),
    "convert": (["convert", "convert.__main__", "convert.checkpoints"], TORCH | JAX | ABOVE),
    "torch_transformer": (
        ["torch_transformer", "torch_transformer.step"],
        JAX | {"flax_transformer", "parity", "twinformer", "train", "translate"},
    ),
    "flax_transformer": (
        ["flax_transformer", "flax_transformer.step"],
        TORCH | {"torch_transformer", "parity", "twinformer", "train", "translate"},
    ),
    "twinformer": (
        ["twinformer", "twinformer.training.loop", "twinformer.translating.texts"],
        TORCH | JAX | {"torch_transformer", "flax_transformer", "parity", "train", "translate"},
    ),
    "train": (["train"], TORCH | JAX | {"torch_transformer", "flax_transformer", "parity"}),
    "translate": (["translate"], TORCH | JAX | {"torch_transformer", "flax_transformer", "parity"}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_package_imports_only_what_is_below_it(name: str) -> None:
    modules, blocked = CASES[name]
    code = BLOCKED.format(blocked=blocked, modules=modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_block_itself_blocks() -> None:
    code = BLOCKED.format(blocked=TORCH, modules=["torch_transformer"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0 and "torch is blocked" in done.stderr
