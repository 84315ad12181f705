"""The backend's programs for TPUs, and the command that compiles them.

What needs Google's compiler runs in a process of its own, and is skipped where it is not installed.
"""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from messages import says

from flax_transformer.step import JaxBackend
from parity.commands import tpu
from parity.tpu import request as requests
from parity.tpu.compilation import memory_of, too_large
from parity.tpu.precision import asked
from parity.tpu.programs import Chips, Task, programs, shapes
from parity.tpu.report import Compiled, Memory, text_of, verdict
from parity.tpu.request import PROGRAMS, Request, longest_row
from parity.twins.cases import config_of
from training_recipe.backend import Checkpoint
from training_recipe.distributed.mesh import Mesh
from training_recipe.options.settings import TrainingSettings
from transformer_spec import TransformerConfig, UserError, initial_weights, weight_shapes

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'twinformer[tpu]' in an environment of its own",
)
TINY = config_of({"num_heads": 3, "num_encoder_layers": 1, "num_decoder_layers": 1})
HEARING = dataclasses.replace(
    TINY, source_vocab_size=0, feature_dim=7, max_source_length=13, encoder_positions="frozen"
)


def test_what_the_model_asks_for_is_counted() -> None:
    def f(x, w):
        y = jax.lax.scan(lambda c, _: (jnp.dot(c, w, precision="highest"), None), x, length=5)[0]
        return jnp.dot(y, w, precision=("highest", "default")), jnp.dot(y, w)

    with jax.default_matmul_precision(None):
        found = asked(jax.make_jaxpr(f)(jnp.ones((3, 7)), jnp.ones((7, 7))).jaxpr)
    assert found.count == 3 and found.flops == 7 * 2 * 3 * 7 * 7
    kind = "float32[3,7] x float32[7,7]"
    assert found.products == dict.fromkeys(
        (f"{kind} highest", f"{kind} highest/default", f"{kind} default"), 1
    )
    assert len(found.faults) == 2


def exact(x, w):
    return jnp.matmul(x, w, precision="highest")


LESS = {
    "default": (lambda x, w: jnp.matmul(x, w, precision="default"), "precision default"),
    "high": (lambda x, w: jnp.matmul(x, w, precision="high"), "precision high"),
    "one operand": (
        lambda x, w: jnp.matmul(x, w, precision=("highest", "default")), "highest/default",
    ),
    "rounded operand": (
        lambda x, w: exact(x.astype(jnp.bfloat16).astype(x.dtype), w), "type bfloat16",
    ),
    "narrow operands": (
        lambda x, w: jnp.matmul(
            x.astype(jnp.float16), w.astype(jnp.float16), precision="highest",
            preferred_element_type=jnp.float32,
        ),
        "type float16",
    ),
    "reduced": (lambda x, w: exact(jax.lax.reduce_precision(x, 8, 7), w), "rounded"),
    "callback": (
        lambda x, w: jax.pure_callback(np.matmul, jax.ShapeDtypeStruct((3, 7), x.dtype), x, w),
        "pure_callback",
    ),
    "in a loop": (
        lambda x, w: jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: jnp.matmul(c, w), x),
        "precision default",
    ),
    "in a derivative": (
        lambda x, w: jax.grad(lambda w: jnp.matmul(x, w, precision="high").sum())(w), "high",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", LESS)
def test_everything_less_than_float32_is_seen(way: str) -> None:
    ask, said = LESS[way]
    with jax.default_matmul_precision(None):
        found = asked(jax.make_jaxpr(ask)(jnp.ones((3, 7)), jnp.ones((7, 7))).jaxpr)
    assert found.faults and all(said in fault for fault in found.faults)


def test_what_is_exact_or_only_moves_numbers_is_no_fault() -> None:
    def f(x, w):
        whole = jnp.matmul(x.astype(jnp.int8), w.astype(jnp.int8))
        return exact(x, w)[jnp.argsort(x[:, 0])], whole, x > 0

    assert asked(jax.make_jaxpr(f)(jnp.ones((3, 7)), jnp.ones((7, 7))).jaxpr).faults == ()


def test_the_shapes_are_those_that_train() -> None:
    settings = TrainingSettings(device="cpu")
    real = JaxBackend(TINY, settings, Checkpoint(initial_weights(TINY, 0)))
    chips = Chips(jax.devices("cpu")[:1], Mesh())
    for shaped, held in zip(shapes(TINY, chips.weight), (real.trained, real.frozen), strict=True):
        assert {n: (s.shape, s.dtype) for n, s in shaped.items()} == {
            n: (a.shape, a.dtype) for n, a in held.items()
        }


def test_no_weights_are_made() -> None:
    """A model of terabytes is outlined and traced."""
    sizes = {"source_vocab_size": 10**7, "target_vocab_size": 10**7, "max_length": 64}
    layers = {"num_encoder_layers": 2, "num_decoder_layers": 2, "num_heads": 64}
    config = TransformerConfig(hidden_dim=2**15, inner_dim=2**17, **sizes, **layers)
    task = Task(config, TrainingSettings(), 8, 64, 1, jax.devices("cpu")[:1], Mesh())
    found = {program.name: program for program in programs(task)}
    assert tuple(found) == PROGRAMS
    weights = 4 * sum(int(np.prod(shape)) for shape in weight_shapes(config).values())
    assert found["gradients"].held == 2 * weights > 7 * 10**12
    forward = asked(found["forward"].trace().jaxpr.jaxpr)
    assert forward.count == 45 and forward.faults == ()


@pytest.mark.parametrize(("config", "beam"), [(TINY, 1), (TINY, 3), (HEARING, 1)])
def test_every_program_asks_for_float32(config: TransformerConfig, beam: int) -> None:
    task = Task(config, TrainingSettings(), 4, 7, beam, jax.devices("cpu")[:1], Mesh())
    for program in programs(task):
        found = asked(program.trace().jaxpr.jaxpr)
        assert found.faults == () and (found.count == 0) == (program.name == "optimizer")


def test_a_row_is_as_long_as_every_side_takes() -> None:
    """A source of features has its own length, whatever the target's."""
    shorter = dataclasses.replace(TINY, max_source_length=5)
    assert list(map(longest_row, (TINY, shorter, HEARING))) == [17, 5, 17]
    task = Task(HEARING, TrainingSettings(), 4, 7, 1, [], Mesh())
    assert task.source.shape == (4, 26, 7) and task.source.strides == (0, 0, 0)


def test_memory_is_what_may_be_there_at_one_time() -> None:
    stats = SimpleNamespace(
        argument_size_in_bytes=100, output_size_in_bytes=50, alias_size_in_bytes=30,
        temp_size_in_bytes=7, generated_code_size_in_bytes=3, peak_memory_in_bytes=120,
    )  # fmt: skip
    assert memory_of(stats, held=1000).total == 1130
    stats.peak_memory_in_bytes = 500
    assert memory_of(stats, held=0).total == 500


def test_a_program_too_large_to_compile_says_what_the_compiler_said() -> None:
    said = too_large("RESOURCE_EXHAUSTED: Ran out of memory: 87.84G exceeds HBM (15.75G).\nmore")
    row = Compiled("forward", "data=4,fsdp=1", 4, {}, 0, (said,))
    assert row.passed is False and "87.84G exceeds HBM (15.75G)" in text_of(row)[1]


KIND = "float32[2,3] x float32[3,5] highest"
MEMORY = Memory(10**6, 1, 1, 1, 1, 1, 1, 10**7)
ROW = Compiled("forward", "data=1,fsdp=1", 1, {KIND: 2}, 10**9, (), 1.2, 1e9, 1e9, MEMORY)


def test_the_report_in_text_and_json(monkeypatch, capsys) -> None:
    many = dataclasses.replace(
        ROW, program="decoding", faults=tuple(f"fault {i}" for i in range(7))
    )
    rows = [ROW, many]
    assert [Compiled.from_dict(json.loads(json.dumps(r.to_dict()))) for r in rows] == rows
    monkeypatch.setattr(tpu, "check_compiler", lambda: None)
    monkeypatch.setattr(tpu, "compile_apart", lambda _: (row.to_dict() for row in rows))
    assert tpu.main([]) == 1
    said = capsys.readouterr().out
    assert f"       2  {KIND}" in said
    assert "  fault 4" in said and "  fault 5" not in said and "and 2 more" in said
    assert said.splitlines()[-1].startswith("FAIL") and "decoding on 1; fault 0" in said
    rows.pop()
    assert tpu.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] and report["rows"][0]["program"] == "forward"
    assert report["config"]["hidden_dim"] == 512 and report["topology"] == ["1x1", "2x2"]
    assert verdict(rows, Request(TINY, 9)).startswith("PASS")


def test_a_program_that_does_not_fit_fails() -> None:
    large = dataclasses.replace(ROW, memory=Memory(10**8, 1, 1, 1, 1, 1, 1, 10**7))
    assert not large.passed and verdict([large], Request(TINY, 9)).startswith("FAIL")


def test_faults_of_the_sizes_are_one_message(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(tpu, "check_compiler", lambda: None)
    TINY.save(tmp_path / "config.json")
    assert tpu.main([str(tmp_path), "--batch", "6", "--length", "99", "--beam", "0"]) == 2
    said = capsys.readouterr().err
    says(said, "3 faults")
    says(said, "--beam 0", "at least 1")
    says(said, "--length 99", "longest is 17")
    says(said, "--batch 6", "4 chips", "2x2")
    wrong = [str(tmp_path), "--topology", "4*4", "2x2", "--mesh", "fsdp=3"]
    assert tpu.main(wrong) == 2
    said = capsys.readouterr().err
    says(said, "--topology 4*4", "2x2, 4x4")
    says(said, "fsdp=3", "there are 4")


def test_the_config_of_a_folder_or_a_file(tmp_path) -> None:
    TINY.save(tmp_path / "config.json")
    assert requests.config_of(tmp_path) == requests.config_of(tmp_path / "config.json") == TINY
    with pytest.raises(UserError, match="does not exist"):
        requests.config_of(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no config.json"):
        requests.config_of(tmp_path / "empty")


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_told_that_there_is_no_compiler(platform: str) -> None:
    with pytest.raises(UserError, match=f"for Linux only; this is {platform}"):
        requests.check_compiler(platform)


def test_without_the_compiler_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'twinformer\[tpu\]'"):
        requests.check_compiler("linux")


def test_a_failure_of_the_compilers_process_is_said() -> None:
    request = Request(TINY, 1, settings={"no such setting": 1}, programs=())
    with pytest.raises(UserError, match=r"(?s)failed with status 1:.*no such setting"):
        list(requests.compile_apart(request))


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
    assert made == [(chips, name) for chips in (1, 4) for name in PROGRAMS]
    for row in report["rows"]:
        assert row["faults"] == [] and row["fits"] and row["bytes_accessed"] > 0
        assert row["memory"]["peak"] > 0 and row["memory"]["arguments"] > 0
        assert all(kind.endswith(" highest") for kind in row["products"])
        assert bool(row["products"]) == (row["program"] != "optimizer")
    gradients = report["rows"][1]
    weights = 4 * sum(int(np.prod(shape)) for shape in weight_shapes(TINY).values())
    assert gradients["memory"]["held_beside"] == 2 * weights


@needs_libtpu
def test_a_fully_sharded_step_of_sixteen_chips(tmp_path) -> None:
    """Every cut weight is gathered once, none is summed whole, and no sum has rows of the batch."""
    sizes = {"hidden_dim": 256, "inner_dim": 1024, "num_heads": 4, "max_length": 64}
    words = dict.fromkeys(("source_vocab_size", "target_vocab_size"), 1024)
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1, "tied_embeddings": "all"}
    TransformerConfig(**sizes, **words, **layers).save(tmp_path / "config.json")
    only = "--programs", "gradients", "optimizer", "--batch", "64", "--length", "32"
    status, report = command(
        str(tmp_path), *only, "--topology", "4x4", "--mesh", "fsdp=16", "--gradient-checkpointing"
    )
    assert status == 0
    gradients, optimizer = report["rows"]
    weights = 4 * sum(
        int(np.prod(s))
        for n, s in weight_shapes(TransformerConfig(**sizes, **words, **layers)).items()
    )
    cut = 16
    assert gradients["mesh"] == "data=1,fsdp=16" and gradients["chips"] == 16
    assert gradients["collectives"]["all-gather"] >= 2 * cut
    assert gradients["memory"]["arguments"] < weights / 16 + 2**20
    assert optimizer["collectives"] == {"all-reduce": 1}  # of the norm


@needs_libtpu
def test_a_fast_mode_fails_the_check(tmp_path) -> None:
    TINY.save(tmp_path / "config.json")
    only = "--programs", "forward", "--topology", "1x1", "--batch", "8"
    status, report = command(str(tmp_path), *only, "--precision", "bfloat16")
    (row,) = report["rows"]
    assert status == 1 and not report["passed"] and row["fits"]
    says(row["faults"], "product", "default", "highest", 23)


@needs_libtpu
def test_the_compilers_full_effort_keeps_the_precision(tmp_path) -> None:
    TINY.save(tmp_path / "config.json")
    only = "--programs", "forward", "decoding", "--topology", "1x1", "--batch", "8"
    status, report = command(str(tmp_path), *only, "--effort", "full")
    assert status == 0 and [row["faults"] for row in report["rows"]] == [[], []]


@needs_libtpu
def test_a_batch_too_large_for_the_chip(tmp_path) -> None:
    TINY.save(tmp_path / "config.json")
    only = "--programs", "forward", "--topology", "1x1", "--batch", str(2**24)
    status, report = command(str(tmp_path), *only)
    (row,) = report["rows"]
    assert status == 1 and not row["fits"] and "exceeds available HBM" in row["faults"][-1]
