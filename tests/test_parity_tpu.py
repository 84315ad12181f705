"""The backend's programs for TPUs, and the command that compiles them.

What needs Google's compiler runs in a process of its own, and is skipped where it is not installed.
"""

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tpu_cases import needs_libtpu

from flax_transformer.step import JaxBackend
from parity import tpu_command as tpu
from parity.cases import config_of
from parity.tpu_compile import asked, asked_faults, memory_of, too_large
from parity.tpu_programs import OutlineBackend, Task, programs
from parity.tpu_report import text_of, verdict
from training_recipe.backend import Checkpoint
from training_recipe.options.settings import TrainingSettings
from transformer_spec import TransformerConfig, UserError, initial_weights, weight_shapes

TINY = config_of({"num_heads": 3, "num_encoder_layers": 1, "num_decoder_layers": 1})


def test_what_the_model_asks_for_is_counted() -> None:
    def f(x, w):
        y = jax.lax.scan(lambda c, _: (jnp.dot(c, w, precision="highest"), None), x, length=5)[0]
        return jnp.dot(y, w, precision=("highest", "default")), jnp.dot(y, w)

    with jax.default_matmul_precision(None):
        found = asked(jax.make_jaxpr(f)(jnp.ones((3, 7)), jnp.ones((7, 7))).jaxpr)
    assert found["products"] == 3 and found["flops"] == 7 * 2 * 3 * 7 * 7
    assert found["precision"] == {"highest": 1, "highest/default": 1, "default": 1}
    assert len(asked_faults(found["precision"])) == 2


def test_the_outlines_programs_are_the_backends() -> None:
    """Byte by byte the same StableHLO, so that what is compiled is what trains."""
    settings = TrainingSettings(device="cpu")
    state = Checkpoint(initial_weights(TINY, 0))
    outline, real = OutlineBackend(TINY, settings), JaxBackend(TINY, settings, state)
    ids = jax.ShapeDtypeStruct((4, 7), np.int32)
    here = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    trained, frozen = outline.shapes(here)
    assert {n: s.shape for n, s in trained.items()} == {n: a.shape for n, a in real.trained.items()}
    arguments = trained, frozen, (ids, ids, ids), np.uint32(1), 1
    ours = outline.compiled_gradients.lower(*arguments).as_text()
    assert ours == real.compiled_gradients.lower(*arguments).as_text()
    update = trained, jax.eval_shape(real.optimizer.init, trained), trained, 1e-3
    ours = outline.compiled_update.lower(*update).as_text()
    assert ours == real.compiled_update.lower(*update).as_text()


def test_no_weights_are_made() -> None:
    """A model of terabytes is outlined and traced."""
    sizes = {"source_vocab_size": 10**7, "target_vocab_size": 10**7, "max_length": 64}
    layers = {"num_encoder_layers": 2, "num_decoder_layers": 2, "num_heads": 64}
    config = TransformerConfig(hidden_dim=2**15, inner_dim=2**17, **sizes, **layers)
    task = Task(config, 8, 64, 1, jax.devices("cpu")[:1])
    found = {program.name: program for program in programs(task)}
    assert tuple(found) == tpu.PROGRAMS
    weights = 4 * sum(int(np.prod(shape)) for shape in weight_shapes(config).values())
    assert found["gradients"].held == 2 * weights > 7 * 10**12
    assert asked(found["forward"].trace().jaxpr.jaxpr)["precision"] == {"highest": 45}


@pytest.mark.parametrize("beam", [1, 3])
def test_every_program_asks_for_float32(beam: int) -> None:
    task = Task(TINY, 4, 7, beam, jax.devices("cpu")[:1])
    for program in programs(task):
        found = asked(program.trace().jaxpr.jaxpr)["precision"]
        assert set(found) == (set() if program.name == "optimizer" else {"highest"})


def test_memory_is_what_may_be_there_at_one_time() -> None:
    stats = SimpleNamespace(
        argument_size_in_bytes=100, output_size_in_bytes=50, alias_size_in_bytes=30,
        temp_size_in_bytes=7, generated_code_size_in_bytes=3, peak_memory_in_bytes=120,
    )  # fmt: skip
    assert memory_of(stats, held=1000)["total"] == 1130
    stats.peak_memory_in_bytes = 500
    assert memory_of(stats, held=0)["total"] == 500


def test_a_program_too_large_to_compile_says_what_the_compiler_said() -> None:
    row = too_large("RESOURCE_EXHAUSTED: Ran out of memory: 87.84G exceeds HBM (15.75G).\nmore")
    row |= {"program": "forward", "chips": 4}
    assert row["passed"] is False and "87.84G exceeds HBM (15.75G)" in text_of(row)[1]


def row_of(program: str = "forward", **changes: object) -> dict:
    memory = dict.fromkeys(
        ("arguments", "outputs", "outputs_in_place_of_arguments", "temporary", "code", "peak",
         "held_beside", "total", "chip"), 2_000_000,
    )  # fmt: skip
    product = {"operands": ["f32[2,3]", "f32[3,5]"], "result": "f32[2,5]", "precision": ["highest"]}
    asked_for = {"products": 2, "precision": {"highest": 2}, "flops": 1e9}
    row = {
        "program": program, "chips": 1, "compile_seconds": 1.2, "flops": 1e9, "fits": True,
        "bytes_accessed": 1e9, "memory": memory, "asked": asked_for, "products": [product] * 2,
        "faults": [], "passed": True,
    }  # fmt: skip
    return row | changes


def test_the_report_in_text_and_json(monkeypatch, capsys) -> None:
    rows = [row_of(), row_of("decoding", passed=False, faults=[f"fault {i}" for i in range(7)])]
    monkeypatch.setattr(tpu, "check_compiler", lambda: None)
    monkeypatch.setattr(tpu, "compile_apart", lambda request, environment: (r for r in rows))
    assert tpu.main([]) == 1
    said = capsys.readouterr().out
    assert "       2  f32[2,3] x f32[3,5] -> f32[2,5]  highest" in said
    assert "fault 4" in said and "fault 5" not in said and "and 2 more" in said
    assert said.endswith("FAIL (batch 64 x 60, effort low): decoding on 1\n")
    rows.pop()
    assert tpu.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] and report["rows"][0]["program"] == "forward"
    assert report["config"]["hidden_dim"] == 512 and report["chips"] == [1, 4]
    assert verdict(rows, report).startswith("PASS (batch 64 x 60, effort low)")


def test_faults_of_the_sizes_are_one_message(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(tpu, "check_compiler", lambda: None)
    TINY.save(tmp_path / "config.json")
    assert tpu.main([str(tmp_path), "--batch", "6", "--length", "99", "--beam", "0"]) == 2
    said = capsys.readouterr().err
    assert "3 faults" in said and "--beam 0 must be at least 1" in said
    assert "--length 99: the model's longest is 17" in said
    assert "--batch 6 cannot be divided over 4 chips" in said


def test_the_config_of_a_folder_or_a_file(tmp_path) -> None:
    TINY.save(tmp_path / "config.json")
    assert tpu.config_of(tmp_path) == tpu.config_of(tmp_path / "config.json") == TINY
    with pytest.raises(UserError, match="does not exist"):
        tpu.config_of(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no config.json"):
        tpu.config_of(tmp_path / "empty")


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_told_that_there_is_no_compiler(platform: str) -> None:
    with pytest.raises(UserError, match=f"for Linux only; this is {platform}"):
        tpu.check_compiler(platform)


def test_without_the_compiler_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'twinformer\[tpu\]'"):
        tpu.check_compiler("linux")


def test_a_failure_of_the_compilers_process_is_said() -> None:
    request = {"config": {"nonsense": 1}, "chips": [1]}
    with pytest.raises(UserError, match=r"(?s)failed with status 1:.*nonsense"):
        list(tpu.compile_apart(request, tpu.environment(None)))


def command(*arguments: str) -> tuple[int, dict]:
    """Exit status and report of a run of the command."""
    line = [sys.executable, "-m", "parity", "tpu", *arguments, "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=200)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    return done.returncode, json.loads(done.stdout)


@needs_libtpu
def test_every_program_of_a_small_model_on_one_chip_and_on_four(tmp_path) -> None:
    TINY.save(tmp_path / "config.json")
    status, report = command(str(tmp_path), "--batch", "8", "--beam", "2")
    assert status == 0 and report["passed"]
    made = [(row["chips"], row["program"]) for row in report["rows"]]
    assert made == [(chips, name) for chips in (1, 4) for name in tpu.PROGRAMS]
    for row in report["rows"]:
        assert row["faults"] == [] and row["fits"] and row["bytes_accessed"] > 0
        assert row["memory"]["peak"] > 0 and row["memory"]["arguments"] > 0
        used = {tuple(product["precision"]) for product in row["products"]}
        assert used == (set() if row["program"] == "optimizer" else {("highest", "highest")})
    one, four = (row for row in report["rows"] if row["program"] == "forward")
    assert len(one["products"]) == len(four["products"]) == one["asked"]["products"]
    assert one["products"][0]["result"] == "f32[136,15]"  # 8 x 17 rows, and 2 x 17 on each of 4
    assert four["products"][0]["result"] == "f32[34,15]"
    gradients = report["rows"][1]
    weights = 4 * sum(int(np.prod(shape)) for shape in weight_shapes(TINY).values())
    assert gradients["memory"]["held_beside"] == 2 * weights


@needs_libtpu
def test_a_fast_mode_fails_the_check(tmp_path) -> None:
    TINY.save(tmp_path / "config.json")
    only = "--programs", "forward", "--chips", "1", "--batch", "8"
    status, report = command(str(tmp_path), *only, "--precision", "bfloat16")
    (row,) = report["rows"]
    assert status == 1 and not report["passed"] and row["fits"]
    compiled = {product["fault"] for product in row["products"]}
    assert compiled == {"operand precision default,default, not highest"}
    assert "the model asks for 23 products at precision default, not highest" in row["faults"]


@needs_libtpu
def test_the_compilers_full_effort_keeps_the_precision(tmp_path) -> None:
    TINY.save(tmp_path / "config.json")
    only = "--programs", "forward", "decoding", "--chips", "1", "--batch", "8"
    status, report = command(str(tmp_path), *only, "--effort", "full")
    assert status == 0 and [row["faults"] for row in report["rows"]] == [[], []]


@needs_libtpu
def test_a_batch_too_large_for_the_chip(tmp_path) -> None:
    TINY.save(tmp_path / "config.json")
    only = "--programs", "forward", "--chips", "1", "--batch", str(2**24)
    status, report = command(str(tmp_path), *only)
    (row,) = report["rows"]
    assert status == 1 and not row["fits"] and "exceeds available HBM" in row["faults"][0]
