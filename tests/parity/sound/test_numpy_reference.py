"""Real weights and real speech: both twins against a forward pass in NumPy that lies elsewhere."""

import importlib.util
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from real_whispers import real_whisper
from recording_cases import PLACES, recordings
from safetensors.numpy import load_file

import flax_transformer
import torch_transformer
from convert.__main__ import main as convert
from training_recipe.sound.recordings import Recording

PROMPT = {"tiny.en": [50257, 50362], "base": [50258, 50259, 50359, 50363]}
WORDS = [843, 523, 616, 5891, 3399, 1265, 407, 644, 534, 1499]


def reference():
    """The program; a test that needs it is skipped where it is not."""
    for place in PLACES:
        file = place / "reference/whisper/reference.py"
        if file.is_file():
            spec = importlib.util.spec_from_file_location("whisper_reference", file)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    pytest.skip("the forward pass in NumPy lies in shared/reference/whisper")


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PROMPT)
def test_both_twins(name: str, tmp_path: Path) -> None:
    program, folder = reference(), real_whisper(name)
    for place, form in (("theirs", "whisper"), ("torch", "torch"), ("flax", "flax")):
        assert (
            convert([str(folder), str(tmp_path / place), "--to", form, "--dtype", "float64"]) == 0
        )
    weights = load_file(tmp_path / "theirs" / "model.safetensors")
    weights["proj_out.weight"] = weights["model.decoder.embed_tokens.weight"]
    settings = json.loads((tmp_path / "theirs" / "config.json").read_text())
    mel = Recording(recordings() / "jfk.flac", 80, np.float64).window(0)[0]
    tokens = np.array([*PROMPT[name], *WORDS])
    expected = program.decode(weights, settings, tokens, program.encode(weights, settings, mel))
    model = torch_transformer.load(tmp_path / "torch")
    with torch.no_grad():
        ours = model(torch.from_numpy(mel)[None], torch.from_numpy(tokens)[None])[0].numpy()
    twin = flax_transformer.load(tmp_path / "flax")
    theirs = np.asarray(twin(jnp.asarray(mel)[None], jnp.asarray(tokens)[None]))[0]
    for found, side in ((ours, "torch"), (theirs, "flax")):
        difference = float(np.abs(found - expected).max())
        print(f"{name} {side}: {difference:.1e}")
        assert difference <= 1e-10, (side, difference)
