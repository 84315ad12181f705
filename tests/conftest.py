"""The strict test world: warnings are errors, shapes are checked, one device is asked for.

JAX keeps what it compiles for as long as the tests run: many of them train the same small model.
"""

import os
import tempfile

import pytest

COMPILED = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


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
        help="print the largest float64 difference of every foreign family (without -n)",
    )


def pytest_configure(config: pytest.Config) -> None:
    place = tempfile.TemporaryDirectory(prefix="compiled-", ignore_cleanup_errors=True)
    config.add_cleanup(place.cleanup)
    # A folder for each process that tests: they would read what another has half written.
    os.environ.update({"JAX_COMPILATION_CACHE_DIR": place.name, **COMPILED})

    from jaxtyping import install_import_hook

    parts = ("dropout", "layers", "model", "loss", "decoding", "decoding_state")
    twins = ("torch_transformer", "flax_transformer")
    modules = [f"{twin}.{part}" for twin in twins for part in parts]
    install_import_hook(modules, "beartype.beartype")


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Family x largest difference of logits between the library's own model and both twins."""
    if not terminalreporter.config.getoption("--families-table"):
        return
    import family_checks

    largest: dict[str, tuple[int, float]] = {}
    for path, worst in family_checks.MEASURED:
        family = path.rpartition("test_family_")[2].removesuffix(".py").replace("_", "-")
        count, most = largest.get(family, (0, 0.0))
        largest[family] = count + 1, max(most, worst)
    terminalreporter.write_line(f"{'family':<20} {'models':>6} {'largest difference':>20}")
    for family, (count, most) in sorted(largest.items()):
        terminalreporter.write_line(f"{family:<20} {count:>6} {most:>20.1e}")
