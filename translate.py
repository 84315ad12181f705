"""Translate texts with a model of either framework: ``python translate.py --help``."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from transformer_spec import TransformerConfig, UserError
from transformer_spec.errors import close_standard_output, exit_status
from twinformer.commands.translate_options import BEST, Options, parse

if TYPE_CHECKING:
    from training_recipe.backend import Backend, MakeBackend
    from training_recipe.text.vocabulary import Vocabulary
    from twinformer.translating.attention import Attend, Pictures

BACKENDS = ("torch", "jax")


def main(arguments: list[str] | None = None) -> int:
    """Translate as the arguments say; the exit status."""
    piped = sys.stdin is not None and not sys.stdin.isatty()
    return exit_status(
        lambda: run(parse(arguments, piped)), "stopped before every text was translated"
    )


def run(options: Options) -> None:
    """Read, translate, write."""
    # Reading vocabularies and checkpoints takes imports that --help must not wait for.
    from convert.checkpoints.folders import locate
    from training_recipe.text.model_vocabularies import load_vocabularies
    from twinformer.translating.texts import encode_texts, read_texts

    path = checkpoint_path(options.run, options.checkpoint)
    home = locate(path).home
    if home is None:
        raise UserError(f"{options.run} has no config.json; give a run or a converted folder")
    config = TransformerConfig.load(home / "config.json")
    source, target = load_vocabularies(home / "vocabulary", config)
    long = options.truncate, options.skip_long
    sources = encode_texts(read_texts(options), source, config.max_length, *long)
    for note in sources.notes:
        print(note, file=sys.stderr)
    backend = load_backend(options.backend, options.device, path, home)
    write_outputs(sources.ids, backend, (source, target), config, options)


def checkpoint_path(run: Path, checkpoint: str) -> Path:
    """What to load: RUN, which stands for its best checkpoint, or the one of a step."""
    from training_recipe.runs.folder import RunFolder

    folder = RunFolder(run)
    if checkpoint == BEST:
        return run
    if not folder.checkpoints.is_dir():
        raise UserError(f"--checkpoint {checkpoint} needs a run folder, which {run} is not")
    if int(checkpoint) not in folder.steps():
        steps = ", ".join(map(str, folder.steps())) or "none"
        raise UserError(f"{run} has no checkpoint of step {checkpoint}; it has: {steps}")
    return folder.checkpoint(int(checkpoint))


def load_backend(backend: str | None, device: str, path: Path, home: Path) -> Backend:
    """The backend around the weights, in float64 where they are and in float32 otherwise."""
    make_backend = choose_backend(backend, home)
    import numpy as np

    from convert.checkpoints import load_weights_of
    from training_recipe.options.settings import TrainingSettings

    config, weights = load_weights_of(path)
    exact = any(array.dtype == np.float64 for array in weights.values())
    dtype = "float64" if exact else "float32"
    settings = TrainingSettings(device=device, dtype=dtype)
    weights = {name: array.astype(dtype, copy=False) for name, array in weights.items()}
    return make_backend(config, settings, weights)


def choose_backend(wanted: str | None, home: Path) -> MakeBackend:
    """The wanted framework, else the one that wrote the run, else the one that is installed."""
    from train import import_backend
    from training_recipe.files.json_files import read_json

    if wanted is not None:
        return import_backend(wanted)
    settings = home / "settings.json"
    wrote = read_json(settings).get("backend") if settings.exists() else None
    for name in sorted(BACKENDS, key=lambda name: name != wrote):
        with contextlib.suppress(UserError):
            make_backend = import_backend(name)
            if wrote not in (None, name):
                print(
                    f"{wrote}, which wrote the run, is not installed; using {name}", file=sys.stderr
                )
            return make_backend
    names = " or ".join(f"pip install 'twinformer[{name}]'" for name in BACKENDS)
    raise UserError(f"neither backend is installed: {names}")


def write_outputs(
    ids: list[list[int]],
    backend: Backend,
    vocabularies: tuple[Vocabulary, Vocabulary],
    config: TransformerConfig,
    options: Options,
) -> None:
    """Decode, write and draw, block by block."""
    from twinformer.translating.texts import output_lines, translate

    pictures = make_pictures(ids, backend, vocabularies, config, options)
    done, rows = 0, options.batch_size
    with progress(len(ids), options) as bar, opened(options.output) as stream:
        for block in translate(ids, backend.decode, options.search, rows, config, bar.update):
            for number, found in enumerate(block, done + 1):
                stream.write(output_lines(number, found, vocabularies[1], options))
                if pictures is not None:
                    pictures.draw(number, ids[number - 1], found[0])
            stream.flush()
            done += len(block)
    for note in pictures.notes() if pictures is not None else ():
        print(note, file=sys.stderr)


def make_pictures(
    ids: list[list[int]],
    backend: Backend,
    vocabularies: tuple[Vocabulary, Vocabulary],
    config: TransformerConfig,
    options: Options,
) -> Pictures | None:
    """What draws the attention of each text, if that is asked for."""
    if options.attention is None:
        return None
    from training_recipe.searching.attention import layer_count
    from twinformer.translating.attention import Pictures

    path, kind = options.attention, options.attention_kind
    if layer_count(kind, config) == 0:
        raise UserError(f"--attention-kind {kind}: the model has no layer with such attention")
    return Pictures(path, kind, attention_of(backend), vocabularies, config, len(ids) > 1)


def attention_of(backend: Backend) -> Attend:
    """What tells the attention of a backend's model."""
    if backend.name == "jax":
        from flax_transformer.attention_maps import attention_weights
    else:
        from torch_transformer.attention_maps import attention_weights
    return functools.partial(attention_weights, backend.model)


def progress(count: int, options: Options):
    """A progress bar on a terminal that the outputs do not go to."""
    from tqdm import tqdm

    shown = sys.stderr.isatty() and (options.output is not None or not sys.stdout.isatty())
    return tqdm(total=count, unit="text", disable=not shown or count < 2)


@contextlib.contextmanager
def opened(path: Path | None) -> Iterator[TextIO]:
    """The output file or standard output, in UTF-8 whatever the system's language."""
    try:
        if path is None:
            sys.stdout.reconfigure(encoding="utf-8")  # pyright: ignore[reportAttributeAccessIssue]
            yield sys.stdout
        else:
            with path.open("w", encoding="utf-8", newline="\n") as stream:
                yield stream
    except BrokenPipeError:
        raise
    except OSError as error:
        if path is None:
            close_standard_output()
        where = "to standard output" if path is None else f"--output {path}"
        raise UserError(f"cannot write {where}: {error.strerror or error}") from None


if __name__ == "__main__":
    sys.exit(main())
