"""The strict test world: warnings are errors, shapes are checked, one device is asked for.

JAX keeps what it compiles for the next tests, as many of them train the same small model, and on
disk for those after a process had grown too large and dropped it.
"""

import gc
import os
import re
import shutil
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from sampling import left_out

from training_recipe.freed_memory import give_back_freed_memory

# Threads of tiny models only wait for each other, the more so where tests run side by side. And a
# program of theirs runs for milliseconds and compiles for seconds: XLA is asked for little
# (docs/log.md), but where the wheel's programs translate and compare: those are as a user's.
XLA = (
    "--xla_cpu_multi_thread_eigen=false",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
)
ARITHMETIC = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": " ".join(XLA)}
NO_NETWORK = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
COMPILED = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
MOST_RESIDENT = 2 << 30
# New objects between two looks for garbage, of which tracing and importing make many.
YOUNG, YOUNG_LOOKS, OLD_LOOKS = 20_000, 20, 50
PLANNED: dict = {}
MEASURING = ("test_family_", "test_shipped_tables")  # the files that --families-table is of
# The files that take longest first: whoever tests beside the last one has nothing to do. And those
# of a folder compile the same programs.
ORDER = ("twins", "twinformer", "parity", "packaging", "convert")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=("cpu", "gpu", "tpu"),
        default="cpu",
        help="where the parity tests compute; skipped with the reason where it is absent",
    )
    parser.addoption(
        "--families-table",
        action="store_true",
        help="test the families alone and print their largest float64 differences (without -n)",
    )
    parser.addoption(
        "--thorough",
        action="store_true",
        help="also what takes long and is much like what is tested anyway (make thorough)",
    )
    parser.addoption(
        "--every-bug",
        action="store_true",
        help="explain every planted bug in every family (minutes), and not each in one family",
    )


def hear_signals() -> None:
    """Let what tests start hear what a terminal's programs hear.

    Programs under nohup, and those in the background of a script, are started deaf to these.
    """
    for name in ("SIGHUP", "SIGINT"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_configure(config: pytest.Config) -> None:
    hear_signals()
    gc.set_threshold(YOUNG, YOUNG_LOOKS, OLD_LOOKS)
    place = tempfile.TemporaryDirectory(prefix="compiled-", ignore_cleanup_errors=True)
    config.add_cleanup(place.cleanup)
    # A folder for each process that tests: they would read what another has half written.
    os.environ.update({"JAX_COMPILATION_CACHE_DIR": place.name, **COMPILED})
    for name, value in (ARITHMETIC | NO_NETWORK).items():
        os.environ.setdefault(name, value)

    # Else xdist would begin with the files of most tests, which are the quickest.
    config.option.loadscopereorder = False

    from jaxtyping import install_import_hook

    parts = ["dropout", "layers", "model", "loss", "attention_maps"]
    parts += ["decoding", "decoding_state", "generation", "outputs", "processors"]
    twins = ("torch_transformer", "flax_transformer")
    modules = [f"{twin}.{part}" for twin in twins for part in parts]
    install_import_hook(modules, "beartype.beartype")


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for --thorough alone."""
    alone = set() if config.getoption("--thorough") else left_out(items)
    if alone:
        config.hook.pytest_deselected(items=[item for item in items if item in alone])
        items[:] = [item for item in items if item not in alone]


@pytest.fixture(scope="session")
def thorough(request: pytest.FixtureRequest) -> bool:
    """Whether all is to be tested."""
    return request.config.getoption("--thorough")


@pytest.fixture(scope="module", autouse=True)
def shapes(request: pytest.FixtureRequest) -> None:
    """The twins' own tests check every shape; in others it would take a tenth of the time."""
    from jaxtyping import config

    config.update("jaxtyping_disable", request.path.parent != Path(__file__).parent / "twins")


@pytest.fixture(scope="module", autouse=True)
def memory():
    """Programs of the tests of a file go after them where the process has grown large."""
    yield
    if "jax" in sys.modules and resident() > MOST_RESIDENT:
        sys.modules["jax"].clear_caches()
        gc.collect()
        give_back_freed_memory()


def resident() -> int:
    """Bytes of this process in memory, where Linux says so."""
    place = Path("/proc/self/statm")
    return int(place.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if place.exists() else 0


@pytest.fixture(scope="session", autouse=True)
def nothing_waits_for_the_disk():
    """What tests write need not outlive a power cut; other processes wait as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def hub_folders(tmp_path_factory):
    """A function: the folder of a family as it lies on the Hub, made when first asked for."""
    from folders_of_hub import HubFolders, place_of_all

    return HubFolders(place_of_all(tmp_path_factory))


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """The device under test, its frameworks set to full float32 precision and 64-bit numbers."""
    import jax
    import torch

    name = request.config.getoption("--device")
    torch.set_float32_matmul_precision("highest")
    jax.config.update("jax_default_matmul_precision", "highest")
    try:
        jax.devices(name)
    except RuntimeError as error:
        pytest.skip(f"--device {name}: JAX has no such device here ({error})")
    if name == "gpu" and not torch.cuda.is_available():
        pytest.skip("--device gpu: PyTorch sees no GPU here")
    return name


@pytest.fixture
def float64():
    """JAX with 64-bit numbers, as the judge of equality needs them, for one test."""
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture(scope="module")
def quick_compiling():
    """Programs compiled for one use; one thread, as PyTorch's and XLA's wait for each other."""
    import jax
    import torch

    before = torch.get_num_threads(), jax.config.read("jax_disable_most_optimizations")
    torch.set_num_threads(1)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    torch.set_num_threads(before[0])
    jax.config.update("jax_disable_most_optimizations", before[1])


@pytest.fixture
def quick(monkeypatch):
    """Training without drawing, which takes longer than small runs, of batches planned once."""
    from training_recipe.batching import batches
    from twinformer.training import loop

    plan = batches.partition

    def partition(source, target, *limits):
        lengths = source.tobytes(), target.tobytes()
        if (*lengths, limits) not in PLANNED:
            PLANNED[*lengths, limits] = plan(source, target, *limits)
        return PLANNED[*lengths, limits]

    monkeypatch.setattr(loop, "draw_curves", lambda run: None)
    monkeypatch.setattr(batches, "partition", partition)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with data to train on, the current one."""
    from training_cases import write_words

    write_words(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def frameworks(request: pytest.FixtureRequest) -> None:
    """A case of a backend is skipped where its framework is not installed."""
    given = getattr(request.node, "callspec", None)
    for argument in ("name", "backend", "backends"):
        value = given.params.get(argument) if given else None
        for framework in {"jax", "torch"} & {*(value if isinstance(value, tuple) else (value,))}:
            pytest.importorskip(framework)


@pytest.fixture(scope="module")
def both_frameworks() -> None:
    """Skips where one of them is not installed."""
    for needed in ("torch", "jax", "orbax.checkpoint"):
        pytest.importorskip(needed)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, both_frameworks):
    """The same random weights as a run of each backend, and nothing else."""
    from translate_cases import WRITERS, make_run

    folder = tmp_path_factory.mktemp("runs")
    return {name: make_run(folder / name, name) for name in WRITERS}


@pytest.fixture
def run(tmp_path):
    """A run of random weights that a test may damage."""
    from translate_cases import make_run

    return make_run(tmp_path / "run", "torch")


@pytest.fixture(scope="module")
def browser():
    """Debian's chromium, driven by playwright; a skip where either is absent."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no program chromium, in which pages are looked at")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def call(capsys):
    """A function: run translate.py; (exit status, output lines, what stderr said)."""
    import translate

    def call(*arguments):
        status = translate.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out.split("\n")[:-1], err

    return call


def absent_frameworks() -> list[str]:
    """The packages that cannot be imported here, and what stands on them."""
    stands_on = {"torch": "torch_transformer transformers", "jax": "flax flax_transformer optax"}
    absent = [name for name in stands_on if find_spec(name) is None]
    return absent + [name for key in absent for name in stands_on[key].split()]


ABSENT = absent_frameworks()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """With one framework alone, the test files that import the other are left out."""
    if collection_path.suffix != ".py" or not ABSENT:
        return None
    words = "|".join([*ABSENT, "parity"])
    text = collection_path.read_text(encoding="utf-8")
    return True if re.search(rf"^\s*(from|import) ({words})\b", text, re.MULTILINE) else None


def turn(item: pytest.Item) -> int:
    """When a test's folder has its turn."""
    parts = item.path.relative_to(Path(__file__).parent).parts
    return ORDER.index(parts[0]) if parts[0] in ORDER else len(ORDER)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The folders in turn; the table alone needs the tests of families only."""
    leave_out(config, items)
    items.sort(key=turn)
    if config.getoption("--families-table"):
        wanted = [item for item in items if item.path.name.startswith(MEASURING)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(wanted)])
        items[:] = wanted


def pytest_collection_finish() -> None:
    """The garbage collector passes over what is imported by now, which stays to the end."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Family x direction x largest difference of logits in float64, of both twins."""
    if not terminalreporter.config.getoption("--families-table"):
        return
    import family_table

    found: dict[str, dict[str, list[float]]] = {}
    for family, direction, difference in family_table.MEASURED:
        found.setdefault(family, {}).setdefault(direction, []).append(difference)
    terminalreporter.write_line("| family | in | out | models |")
    terminalreporter.write_line("|---|---|---|---|")
    for family, by in sorted(found.items()):
        cells = [f"{max(by[d]):.1e}" if d in by else "" for d in ("in", "out")]
        count = sum(map(len, by.values()))
        terminalreporter.write_line(f"| {family} | {' | '.join(cells)} | {count} |")
