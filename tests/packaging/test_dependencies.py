"""What is declared is imported, and a plain install converts without what only training needs."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from release.dependencies import EXTRAS, agreeing, dependencies, modules_of
from transformer_spec import TransformerConfig, initial_weights

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_declared_dependency_is_imported_and_the_reverse():
    assert not dependencies(ROOT).faults


def test_a_dependency_too_many_and_one_too_few_are_found():
    assert agreeing({"numpy", "jax"}, {"numpy", "jax", "json", "convert"}).faults == []
    told = agreeing({"numpy", "attrs"}, {"numpy", "pandas", "json"}).faults
    assert told == [
        "attrs is declared, and nothing imports it",
        "pandas is imported, and not declared",
    ]


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
