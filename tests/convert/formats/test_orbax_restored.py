"""What the page of families says of restoring a JAX checkpoint holds for every model."""

import dataclasses
import shutil

import numpy as np
import pytest
from convert_cases import CONFIG, checkpoint, write_run
from page_blocks import DOCS, blocks

from convert import torch_to_flax
from convert.checkpoints import write_flax_checkpoint
from transformer_spec import initial_weights, trained_names, weight_shapes

pytest.importorskip("orbax.checkpoint")
flax_transformer = pytest.importorskip("flax_transformer")
RUN = "runs/cmudict-jax-1"
(SHOWN,) = [b for b in blocks(DOCS / "families.md") if "StandardCheckpointer" in b.text]
ALL_TRAINED = {"output_bias": "trained"}
FROZEN = {"encoder_positions": "frozen", "decoder_positions": "frozen"}


@pytest.mark.parametrize("averaged", [False, True], ids=["", "ema"])
@pytest.mark.parametrize("changes", [{}, ALL_TRAINED, FROZEN], ids=["bias", "none", "positions"])
def test_the_target_that_the_page_shows(changes, averaged, tmp_path, monkeypatch) -> None:
    config = dataclasses.replace(CONFIG, **changes)
    frozen = weight_shapes(config).keys() - set(trained_names(config))
    assert bool(frozen) == (changes != ALL_TRAINED)
    monkeypatch.chdir(tmp_path)
    folder = write_run(tmp_path / RUN, "flax", steps=(20,), best=20)
    config.save(folder / "config.json")
    shutil.rmtree(folder / "checkpoints/step_00000020/orbax")
    written = checkpoint(config, seed=20, count=20)
    drawn = initial_weights(config, 5)
    raw = {name: drawn[name] for name in trained_names(config)} if averaged else {}
    write_flax_checkpoint(folder / "best", dataclasses.replace(written, raw=raw))
    names = {"flax_transformer": flax_transformer}
    text = SHOWN.text
    if averaged:
        text = text.replace("\n}\n", '\n    "raw": trained,\n}\n')
    exec(compile(text, "families.md", "exec"), names)
    restored, trained = names["restored"], names["trained"]
    assert int(restored["opt_state"][0].count) == 20
    assert flat(restored["opt_state"][0].mu).keys() == flat(trained).keys()
    found, wanted = flax_transformer.weights(names["twin"]), torch_to_flax(written.weights)
    assert found.keys() == wanted.keys()
    for place, array in flat(restored["params"]).items():
        np.testing.assert_array_equal(array, wanted[".".join(map(str, place))])
    assert len(flat(restored.get("raw", {}))) == len(raw)


def flat(tree, place=()) -> dict:
    if not isinstance(tree, dict):
        return {place: tree}
    return {n: leaf for key, part in tree.items() for n, leaf in flat(part, (*place, key)).items()}
