"""What a user asks of ``train.py``: settings gathered from flags, recipe, preset and defaults."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

from training_recipe.corpora.corpus import missing_files
from training_recipe.options.joining import (
    DEVICE_OPTIONS,
    DeviceOptions,
    in_run,
    joining_faults,
)
from training_recipe.options.presets import (
    DATA_PRESET,
    DICTIONARY_PRESET,
    FINETUNING_PRESET,
    PRESETS,
    preset_for,
)
from training_recipe.options.settings import SETTINGS, TrainingSettings, combination_faults
from training_recipe.options.usual_names import meant
from transformer_spec import DROPOUTS, ConfigError, TransformerConfig
from transformer_spec.declarations import (
    REQUIRED,
    Declaration,
    declarations,
    in_group,
    range_fault,
    read_value,
)
from transformer_spec.errors import Faults
from transformer_spec.paths import at_home

BACKENDS = ("jax", "torch")
RECIPES = Path(__file__).parents[1] / "recipes"
in_model = in_group("model")


@dataclasses.dataclass(frozen=True)
class Invocation(DeviceOptions):
    """What belongs to one command and not to the run it makes or continues."""

    backend: str = in_run(
        "framework; a resumed run keeps its own unless told", "jax", choices=BACKENDS
    )
    recipe: str | None = in_run(
        "a recipe by name, or a TOML file of settings, its tables named as these groups; flags win",
        None,
    )
    preset: str | None = in_model(
        f"settings that go well together; none: {DICTIONARY_PRESET} for cmudict, {DATA_PRESET} for "
        f"other data, {FINETUNING_PRESET} with --init",
        None,
        choices=tuple(PRESETS),
    )
    name: str | None = in_run("the run is written to runs/NAME", None)
    out: str | None = in_run("run folder, instead of runs/NAME", None)
    resume: str | None = in_run("run folder to go on with", None)
    resume_or_start: str | None = in_run(
        "go on with runs/NAME, or start it by that name where it is not there yet: for launchers "
        "that repeat one command",
        None,
    )
    from_step: int | None = in_run(
        "with --resume: the checkpoint to go on from; none: the newest", None, least=0
    )
    verify: bool = in_run(
        "compare every tensor that is read from a checkpoint with what was saved", True
    )


NAMES = ("name", "out", "recipe", "data", "valid", "test", "init", "resume_or_start")
FILES = ("out", "recipe", "data", "valid", "test", "init", "resume")
PLACES = ("name", "out", "resume_or_start")
STARTING = ("name", "out", "recipe", "preset", "init", "resume_or_start")
# Those of the command alone, then those of devices, as help lists them.
INVOCATION = {
    name: declaration
    for name, declaration in declarations(Invocation).items()
    if name not in DEVICE_OPTIONS
} | DEVICE_OPTIONS
# Vocabulary sizes come from the vocabularies, token numbers are the vocabularies' own.
FIXED_FIELDS = ("pad_id", "unk_id", "bos_id", "eos_id", "decoder_start_id")
MODEL: dict[str, Declaration] = {
    name: declaration
    for name, declaration in declarations(TransformerConfig).items()
    if name not in (*FIXED_FIELDS, "source_vocab_size", "target_vocab_size")
}
ALL: dict[str, Declaration] = {**INVOCATION, **SETTINGS, **MODEL}
# What comes with the model of --init.
BROUGHT = (
    *("source_vocabulary", "target_vocabulary", "source_vocab_size", "target_vocab_size"),
    *("shared_vocabulary", "sentencepiece_algorithm", "init_gain"),
    *(name for name in MODEL if name not in DROPOUTS),
)
OF_THE_MODEL = ("padding_gradient", "beam", "length_penalty")  # with --init, where not given
# A model of any size, for which rates of dropout can be judged.
SOME_MODEL = {name: 1 for name, declaration in MODEL.items() if declaration.default is REQUIRED}
IN_RECIPES = {name: d for name, d in ALL.items() if name not in INVOCATION or name == "preset"}


@dataclasses.dataclass(frozen=True)
class Request:
    """Everything asked for, checked; ``given`` holds only what flags and recipe said."""

    invocation: Invocation
    settings: TrainingSettings
    model: dict[str, Any]
    given: dict[str, Any]


def as_settings(text: str) -> str:
    """A text on flags as it reads where settings are named; commands stay as they are typed."""
    names = {declaration.flag: name for name, declaration in ALL.items()}
    flags = r"(?<!train )(?<!train\.py )(?<![\w/.-])--[a-z0-9-]+(?![\w/.])"
    return re.sub(flags, lambda found: names.get(found[0], found[0]), text)


def recipe_file(given: str) -> Path:
    """The file of a recipe: a path, or the name of one that comes with the program."""
    path = Path(given)
    own = RECIPES / f"{path.name.removesuffix('.toml')}.toml"
    named = path.parent in (Path(), Path("recipes")) and own.is_file()
    return own if named and not path.is_file() else path


def read_recipe(path: Path, faults: Faults) -> dict[str, Any]:
    """The settings of a TOML file by name; what is wrong with it is added to ``faults``."""
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        faults.add(f"--recipe {path}: no such file; recipes that come with the program: {known}")
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        faults.add(f"--recipe {path} cannot be read: {error}")
        return {}
    except RecursionError:
        faults.add(f"--recipe {path} cannot be read: it is nested too deep for a recipe")
        return {}
    return flatten(tables, f"{path}: ", faults)


def flatten(tables: dict[str, Any], where: str, faults: Faults) -> dict[str, Any]:
    """{table: {setting: value}} as {setting: value}, each in its own table and of its type."""
    groups = {declaration.group for declaration in IN_RECIPES.values()}
    values = {}
    for table, content in tables.items():
        if not isinstance(content, dict):
            faults.add(f"{where}{_misplaced(table)}")
        elif table not in groups:
            faults.add(f"{where}unknown table [{table}]{meant(table, groups)}")
        else:
            for name, value in content.items():
                _take(table, name, value, values, where, faults)
    return values


def _misplaced(name: str) -> str:
    if name in IN_RECIPES:
        return f"{name} stands in no table; put it below [{IN_RECIPES[name].group}]"
    return f"unknown key {name}{meant(name, IN_RECIPES)}"


def _take(
    table: str, name: str, value: Any, values: dict[str, Any], where: str, faults: Faults
) -> None:
    declaration = IN_RECIPES.get(name)
    if declaration is None and name in INVOCATION:
        faults.add(f"{where}{name} belongs on the command line, not in a recipe")
    elif declaration is None:
        faults.add(f"{where}unknown key {name} in [{table}]{meant(name, IN_RECIPES)}")
    elif declaration.group != table:
        faults.add(f"{where}{name} belongs in [{declaration.group}], not in [{table}]")
    else:
        try:
            values[name] = read_value(declaration, value)
        except ValueError as error:
            faults.add(f"{where}{name}: {error}")


def preset_values(name: str) -> dict[str, Any]:
    """The settings of a preset by name; of an unknown one, those that data of one's own has."""
    return flatten(PRESETS.get(name, PRESETS[DATA_PRESET]), "preset: ", Faults())


@dataclasses.dataclass(frozen=True)
class Layer:
    """What one place says of settings: defaults, a preset, a recipe or flags."""

    place: str
    values: dict[str, Any]


def layers(flags: dict[str, Any], faults: Faults) -> list[Layer]:
    """What is said of every setting, flags last, which win over the recipe, that over the preset.

    What is wrong with a value is added to ``faults``.
    """
    recipe = read_recipe(recipe_file(flags["recipe"]), faults) if flags.get("recipe") else {}
    recipe = _with_home(recipe)
    given = recipe | flags
    for name, value in given.items():
        fault = range_fault(ALL[name], value)
        spelling = ALL[name].flag if name in flags else f"{flags['recipe']}: {name}"
        faults.require(fault is None, f"{spelling}: {fault}")
    init = given.get("init")
    preset = given.get("preset") or preset_for(given.get("data", ALL["data"].default), init)
    sizes = preset_values(preset)
    usual = ALL if init is None else {name: d for name, d in ALL.items() if name not in MODEL}
    defaults = {name: d.default for name, d in usual.items() if d.default is not REQUIRED}
    return [
        Layer("default", defaults),
        Layer(f"preset {preset}", sizes),
        Layer(flags.get("recipe") or "recipe", recipe),
        Layer("given", flags | {"preset": preset}),
    ]


def make_request(flags: dict[str, Any], faults: Faults) -> Request:
    """The settings and the model of what was asked for.

    Raises one UserError that names every fault, those already in ``faults`` included.
    """
    flags = _with_home(flags)
    found = layers(flags, faults)
    merged = {name: value for layer in found for name, value in layer.values.items()}
    for fault in _combined(merged, flags, found[2].values):
        faults.add(fault)
    if faults.messages:
        _add_missing_files(merged, faults)
    faults.raise_if_any("cannot start")
    # What is given to a resumed run must go with settings of its own: starting.py sees to that.
    own = {} if merged["resume"] is not None else {name: merged[name] for name in SETTINGS}
    return Request(
        Invocation(**{name: merged[name] for name in INVOCATION}),
        TrainingSettings(**own),
        {name: merged[name] for name in MODEL if name in merged},
        found[2].values | flags,
    )


def _with_home(values: dict[str, Any]) -> dict[str, Any]:
    """The same, in which paths of files are as a shell would have given them."""
    texts = {n: at_home(v) for n, v in values.items() if n in FILES and isinstance(v, str)}
    more = values.get("extra_data")
    lists = {"extra_data": tuple(map(at_home, more))} if isinstance(more, tuple) else {}
    return values | texts | lists


def _add_missing_files(merged: dict[str, Any], faults: Faults) -> None:
    """What else is at fault: where nothing is, whoever reads the files tells it."""
    if merged["resume"] is not None or merged["resume_or_start"] is not None:
        return
    names = [merged["data"], merged["valid"], merged["test"], *(merged["extra_data"] or ())]
    languages = merged["source_lang"], merged["target_lang"]
    missing_files([name for name in names if name], languages, faults)


def request_of(settings: dict[str, Any]) -> Request:
    """The request of settings by name, as Python values; one UserError names every fault."""
    faults, values = Faults(), {}
    for name, value in settings.items():
        if name not in ALL:
            faults.add(f"there is no setting {name!r}{meant(name, ALL)}")
            continue
        try:
            values[name] = read_value(ALL[name], value)
        except ValueError as error:
            faults.add(f"{name}: {error}")
    return make_request(values, faults)


def _combined(merged: dict[str, Any], flags: dict[str, Any], recipe: dict[str, Any]) -> list[str]:
    if merged["resume"] == "":
        return ["--resume is empty; give a run folder"]
    joining = joining_faults(merged)
    if merged["resume"] is not None:
        fresh = [n for n in STARTING if n in flags]
        said = [f"{ALL[name].flag} starts a run; it cannot go with --resume" for name in fresh]
        return said + joining
    faults = combination_faults(merged) + _place_faults(merged, flags) + joining
    if merged["from_step"] is not None:
        faults.append("--from-step chooses a checkpoint of --resume RUN, which is not given")
    if merged["init"] is not None:
        return faults + _begun_faults(merged, flags, recipe)
    if merged["preset"] == FINETUNING_PRESET:
        said = f"the preset {FINETUNING_PRESET} has no sizes of a model: it is for --init FOLDER"
        return [*faults, said]
    if merged["tied_embeddings"] == "all" and not merged["shared_vocabulary"]:
        faults.append("--tied-embeddings all ties both languages; it needs --shared-vocabulary")
    return faults + _model_faults({name: merged[name] for name in MODEL if name in merged})


def _place_faults(merged: dict[str, Any], flags: dict[str, Any]) -> list[str]:
    """What is wrong with where the run is to go."""
    faults = [f"{ALL[n].flag} is empty; give a name" for n in NAMES if flags.get(n) == ""]
    places = [ALL[n].flag for n in PLACES if merged[n] is not None]
    if len(places) > 1:
        both = "both" if len(places) == 2 else "all"
        faults.append(f"{' and '.join(places)} {both} say where the run goes; give one")
    for name in ("name", "resume_or_start"):
        value = merged[name]
        if value and (Path(value).name != value or value.startswith(".")):
            advice = "--out takes a path" if name == "name" else "give NAME for the run runs/NAME"
            faults.append(f"{ALL[name].flag} {value} is not a plain name; {advice}")
    return faults


def _begun_faults(
    merged: dict[str, Any], flags: dict[str, Any], recipe: dict[str, Any]
) -> list[str]:
    """What does not go with a model that is there already."""
    faults, given = [], recipe | flags
    if not merged["init"]:
        return faults  # named already
    brings = f"--init {merged['init']} brings the model and its vocabularies"
    flagged = [ALL[name].flag for name in BROUGHT if name in flags]
    if flagged:
        faults.append(f"{brings}; leave out {', '.join(flagged)}")
    written = [name for name in BROUGHT if name in recipe and name not in flags]
    if written:
        faults.append(f"{merged['recipe']}: {brings}; leave out {', '.join(written)}")
    if "preset" in given and "model" in PRESETS.get(merged["preset"], {}):
        faults.append(
            f"the preset {merged['preset']} has sizes of a model, which --init brings; "
            f"{FINETUNING_PRESET} has none"
        )
    if "data" not in given:
        faults.append("--init needs --data: what the model is to learn from now")
    return faults + _model_faults(
        {name: merged[name] for name in DROPOUTS if name in merged} | SOME_MODEL
    )


def _model_faults(model: dict[str, Any]) -> list[str]:
    """The faults of the model's config, its vocabulary sizes not known yet."""
    wrong = {name for name, value in model.items() if range_fault(MODEL[name], value)}
    if any(MODEL[name].default is REQUIRED for name in wrong):
        return []  # named already, with the flag
    right = {name: value for name, value in model.items() if name not in wrong}
    try:
        TransformerConfig(source_vocab_size=4, target_vocab_size=4, **right)
    except ConfigError as error:
        return error.faults
    return []
