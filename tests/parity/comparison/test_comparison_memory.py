"""Models that do not fit into memory in float64: estimated, streamed, or refused."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from messages import saying, says

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

from parity_cases import (  # noqa: E402
    PRE,
    TINY,
    WHISPER,
    flax_side,
    random_weights,
    torch_side,
    write,
)

from parity.comparison.comparison import compare_sides  # noqa: E402
from parity.comparison.memory import Needs, available, needs, plan, resident  # noqa: E402
from parity.comparison.settings import Settings  # noqa: E402
from parity.forward.ids import generated  # noqa: E402
from parity.forward.measures import differing, mask_of  # noqa: E402
from parity.forward.substeps import substeps  # noqa: E402
from transformer_spec import TransformerConfig, UserError, initial_weights  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64")
GIB = 2**30
SOME = Needs(with_gradients=9 * GIB, whole=6 * GIB, streamed=GIB)
CONFIGS = {
    "post": TINY,
    "pre": PRE,
    "tied": replace(TINY, source_vocab_size=19, tied_embeddings="all", output_bias="frozen"),
    "target tied": replace(PRE, tied_embeddings="target_output", output_bias="none"),
    "no biases": replace(
        TINY, attention_bias=False, attention_output_bias=None, ffn_bias=False
    ),
    "relative": replace(
        TINY, source_vocab_size=19, tied_embeddings="source_target", norm="rms", gated_ffn=True,
        encoder_positions="relative", decoder_positions="relative", head_dim=5,
    ),
    "features": WHISPER,
}  # fmt: skip


class TestPlan:
    def test_everything_fits(self):
        assert plan(SOME, 10 * GIB, True, True) == plan(SOME, 10 * GIB, True, False)
        found = plan(SOME, 10 * GIB, True, True)
        assert (found.gradients, found.streamed, found.notes) == (True, False, ())

    def test_gradients_do_not(self):
        found = plan(SOME, 7 * GIB, True, True)
        assert (found.gradients, found.streamed) == (False, False)
        says(found.notes[0], "9.0 GiB", "7.0 GiB are allowed")
        assert plan(SOME, 7 * GIB, False, True).notes == ()

    def test_whole_models_do_not(self):
        found = plan(SOME, 2 * GIB, True, True)
        assert (found.gradients, found.streamed) == (False, True)
        assert "module by module" in found.notes[0]

    def test_without_gradients_the_note_says_what_these_models_need(self):
        assert "needs about 6.0 GiB" in plan(SOME, 2 * GIB, False, True).notes[0]

    @pytest.mark.parametrize(("limit", "can_stream"), [(GIB // 2, True), (2 * GIB, False)])
    def test_nothing_does(self, limit, can_stream):
        with pytest.raises(UserError, check=saying("not enough memory", "6.0 GiB")):
            plan(SOME, limit, True, can_stream)


class TestAvailable:
    def system(self, tmp_path, folder, **files):
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 2048 kB\n")
        (tmp_path / folder).mkdir(parents=True)
        for name, text in files.items():
            (tmp_path / folder / name.replace("__", ".")).write_text(text)
        return available(tmp_path)

    def test_a_container_bounds_it(self, tmp_path):
        stat = "anon 5\ninactive_file 100\n"
        files = {"memory__max": "1000\n", "memory__current": "700\n", "memory__stat": stat}
        assert self.system(tmp_path, "sys/fs/cgroup", **files) == 400

    def test_an_older_container_too(self, tmp_path):
        files = {"memory__limit_in_bytes": "900\n", "memory__usage_in_bytes": "1000\n"}
        files["memory__stat"] = "total_inactive_file 300\n"
        assert self.system(tmp_path, "sys/fs/cgroup/memory", **files) == 200

    def test_no_limit(self, tmp_path):
        files = {"memory__max": "max\n", "memory__current": "700\n", "memory__stat": ""}
        assert self.system(tmp_path, "sys/fs/cgroup", **files) == 2048 * 1024

    def test_a_system_that_says_nothing(self, tmp_path, monkeypatch):
        monkeypatch.delattr("os.sysconf")
        monkeypatch.setattr("pathlib.Path.read_text", lambda _: (_ for _ in ()).throw(OSError()))
        assert available(tmp_path) == 8 * GIB and resident() == 0


CASES = [(name, "float64") for name in CONFIGS] + [("post", "float32"), ("pre", "bfloat16")]
SIDES = {"torch": torch_side, "jax": flax_side}
# In JAX these compile all anew; PyTorch has these cases, and JAX the others.
THOROUGH = {("pre", "bfloat16", "jax"), ("post", "float32", "jax"), ("tied", "float64", "jax")}


@pytest.mark.sampled(7)
@pytest.mark.parametrize(
    ("name", "precision", "backend"),
    [
        pytest.param(*case, marks=pytest.mark.thorough if case in THOROUGH else ())
        for case in ((*of_both, side) for of_both in CASES for side in SIDES)
    ],
)
def test_module_by_module_is_the_same_function(name, precision, backend, monkeypatch):
    monkeypatch.setattr("jax.clear_caches", lambda: None)  # the next case runs the same programs
    config = CONFIGS[name]
    side = SIDES[backend](config)
    ids = generated(config, 7)[0]
    whole = side.trace(ids, precision)
    side.streamed = True
    streamed = side.trace(ids, precision)
    assert set(streamed) == set(whole) >= set(substeps(config))
    unit = {"float64": 1e-12, "float32": 1e-4, "bfloat16": 0.5}[precision]
    for step in substeps(config):
        mask = mask_of(step, ids, config)
        assert differing(step, whole[step], streamed[step], mask)[0] <= unit


def between(sides, monkeypatch) -> int:
    """A limit that only the module by module comparison keeps to."""
    monkeypatch.setattr("parity.comparison.memory.resident", lambda: 0)
    found = needs(*sides, generated(TINY, 7))
    assert found.streamed < found.whole < found.with_gradients
    return (found.streamed + found.whole) // 2


def test_a_difference_is_found_module_by_module(monkeypatch):
    weights = random_weights(TINY)
    name = "decoder.dec_layers.1.ffn.fc1.weight"
    sides = torch_side(TINY, weights), flax_side(TINY, weights | {name: weights[name] + 1e-6})
    limit = between(sides, monkeypatch)
    report = compare_sides(*sides, Settings((), longest=7, max_ram=limit))
    assert "module by module" in report.notes[0] and not report.same
    assert report.first.part == "decoder.dec_layers.1.ffn.fc1" and report.causes is None


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of 16 million weights, which is 125 MB in float64, twice."""
    config = TransformerConfig(40000, 40000, 128, 256, 4, 1, 1, 64, tied_embeddings="none")
    weights = initial_weights(config, 0, np.float32)
    return [write(tmp_path_factory.mktemp(n) / n, config, weights) for n in ("a", "b")]


# A line that it is given is a limit; one that it prints is (status, output, errors, peak in kB).
# The peak is of its own process: getrusage would count that of the tests, which starts it, too.
RUNS = """
import contextlib, io, json, sys
from parity.__main__ import main
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([*sys.argv[1:], "--max-ram", line.strip()])
    lines = open("/proc/self/status").read().splitlines()
    peak = next(int(x.split()[1]) for x in lines if x.startswith("VmHWM"))
    print(json.dumps([status, out.getvalue(), err.getvalue(), peak]), flush=True)
"""


@pytest.fixture
def within(folders):
    """A function: compare the folders within so many MiB; (status, output, errors, peak in MiB).

    All in one process, which is another than that of the tests.
    """
    flags = ["--json", "--length", "8", "--precision", "--b-framework", "jax"]
    command = [sys.executable, "-c", RUNS, *map(str, folders), *flags]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:

        def within(limit: int) -> tuple[int, str, str, int]:
            process.stdin.write(f"{limit}MiB\n")
            process.stdin.flush()
            status, out, err, peak = json.loads(process.stdout.readline())
            return status, out, err, peak // 1024

        yield within


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_command_says_what_it_needs_and_keeps_to_it(within):
    status, out, err, _ = within(100)
    assert status == 2 and out == ""
    words = r"[\d.]+ GiB.* ([\d.]+) ([GM])iB module by module.* 100 MiB are allowed"
    found = re.search(words, err)
    assert found is not None, err
    most = int(float(found[1]) * {"G": 1024, "M": 1}[found[2]]) + 64
    _, out, _, peak = within(most)
    report = json.loads(out)
    assert "module by module" in report["notes"][0] and report["same"]
    assert peak <= most
