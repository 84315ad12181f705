"""What is to be compiled for TPU chips that are not there, and the process that does it.

Google's TPU compiler (libtpu) needs no TPU. It runs in a process of its own, because it takes its
settings from the environment at its start and JAX must not look for a TPU beside it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training_recipe.distributed.mesh import REST, Mesh, read_mesh
from transformer_spec import Faults, TransformerConfig, UserError

PROGRAMS = ("forward", "gradients", "optimizer", "decoding")
TOPOLOGIES = ("1x1", "2x2")
KNOWN = re.compile(r"[1-9]\d*x[1-9]\d*")
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is claimed, so another JAX may have libtpu loaded
    "TPU_LOG_DIR": "disabled",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}
FORM = "give a slice of v5e chips as AxB, 1x1, 2x2, 4x4, 4x8, 8x8, 8x16 or 16x16"
BASE_VOCABULARY = 10_000
BASE_LENGTH = 60


@dataclass(frozen=True)
class Request:
    """A config's programs for a batch of ``batch`` rows of ``length`` tokens; ``effort`` is low or
    full, ``precision`` of products that of the environment where it is None. A source of features
    has as many frames as the model takes.

    ``topology`` names slices of chips; ``mesh`` is how they stand, None for data parallel.
    ``settings`` are those of training by name, where they are not the usual ones.
    """

    config: TransformerConfig
    length: int
    batch: int = 64
    beam: int = 1
    topology: tuple[str, ...] = TOPOLOGIES
    mesh: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    programs: tuple[str, ...] = PROGRAMS
    effort: str = "low"
    precision: str | None = None

    def check(self) -> None:
        """Every fault of the sizes in one UserError."""
        faults = Faults()
        for name in ("batch", "beam", "length"):
            value = getattr(self, name)
            faults.require(value >= 1, f"--{name} {value} must be at least 1")
        longest = longest_row(self.config)
        too_long = f"--length {self.length}: the model's longest is {longest}"
        faults.require(self.length <= longest, too_long)
        for topology in self.topology:
            try:
                mesh = self.mesh_on(topology)
            except UserError as error:
                faults.take(error)
                continue
            chips = f"the {mesh.devices} chips of --topology {topology}"
            message = f"--batch {self.batch} cannot be divided over {chips}"
            faults.require(self.batch % mesh.devices == 0, message)
        faults.raise_if_any("cannot compile")

    def mesh_on(self, topology: str) -> Mesh:
        """The mesh of all chips of a slice; a UserError where there is none."""
        if not KNOWN.fullmatch(topology):
            raise UserError(f"--topology {topology}: {FORM}")
        asked = Mesh(data=REST) if self.mesh is None else read_mesh(self.mesh)
        return asked.on(chips_in(topology))

    @property
    def in_bfloat16(self) -> bool:
        """Whether products are to be as a fast mode has them, and not exact."""
        return self.settings.get("dtype") == "bfloat16"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"config": self.config.to_dict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Request:
        lists = {name: tuple(content[name]) for name in ("topology", "programs")}
        config = TransformerConfig.from_dict(content["config"])
        values: dict[str, Any] = {**content, **lists, "config": config}
        return cls(**values)


def longest_row(config: TransformerConfig) -> int:
    """The most tokens that every side has positions for."""
    read = config.max_length if config.feature_dim else config.max_source_length
    return min(config.max_length, read)


def chips_in(topology: str) -> int:
    """How many chips a slice of AxB has."""
    rows, columns = topology.split("x")
    return int(rows) * int(columns)


def check_compiler(platform: str = sys.platform) -> None:
    """A UserError that says what is missing, where the compiler cannot be had."""
    if platform != "linux":
        raise UserError(
            f"Google publishes the TPU compiler, libtpu, for Linux only; this is {platform}"
        )
    if importlib.util.find_spec("libtpu") is None or importlib.util.find_spec("jax") is None:
        raise UserError(
            "the TPU compiler is not installed: pip install 'twinformer[tpu]', best in an "
            "environment of its own, since JAX looks for a TPU wherever libtpu is installed"
        )


def config_of(source: Path | None) -> TransformerConfig:
    """The config of a run, a converted folder or a file; without one the base size."""
    if source is None:
        from training_recipe.options.presets import PRESETS

        words = dict.fromkeys(("source_vocab_size", "target_vocab_size"), BASE_VOCABULARY)
        return TransformerConfig.from_dict(PRESETS["base"]["model"] | words)
    if source.suffix == ".json":
        return TransformerConfig.load(source)
    from convert.checkpoints.folders.location import locate

    home = locate(source).home
    if home is None:
        raise UserError(f"{source} has no config.json of ours; give a run or a converted folder")
    return TransformerConfig.load(home / "config.json")


def compile_apart(request: Request) -> Generator[dict[str, Any], None, None]:
    """The rows that the compiler's process writes, one by one; its failure is a UserError.

    Whatever ends the caller early ends the process too.
    """
    chosen = {"JAX_DEFAULT_MATMUL_PRECISION": request.precision} if request.precision else {}
    command = [sys.executable, "-m", "parity.tpu.compilation", json.dumps(request.to_dict())]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | ENVIRONMENT | chosen
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(command, env=environment, stderr=said, **pipes) as process:
            try:
                yield from map(json.loads, process.stdout or ())
                process.wait()
            finally:
                process.kill()
        if process.returncode:
            said.seek(0)
            end = "\n".join(said.read().splitlines()[-15:])
            status = process.returncode
            raise UserError(f"the TPU compiler's process failed with status {status}:\n{end}")
