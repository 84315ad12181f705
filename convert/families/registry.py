"""Every foreign family by its name."""

from convert.families.base import MEND, Family, Source
from convert.families.eole.family import Eole
from convert.families.fairseq.family import Fairseq
from convert.families.huggingface.bart import Bart, MBart, PLBart
from convert.families.huggingface.blenderbot import Blenderbot, BlenderbotSmall
from convert.families.huggingface.flax import (
    BartFlax,
    BlenderbotFlax,
    BlenderbotSmallFlax,
    MarianFlax,
    MBartFlax,
    PegasusFlax,
)
from convert.families.huggingface.fsmt import FSMT
from convert.families.huggingface.library_class import LibraryClass
from convert.families.huggingface.m2m100 import M2M100
from convert.families.huggingface.marian import Marian
from convert.families.huggingface.pegasus import Pegasus
from convert.families.marian_npz.family import MarianNpz
from convert.families.opennmt.family import OpenNMT
from convert.families.t5.flax import MT5Flax, T5Flax
from convert.families.t5.names import MT5, T5, UMT5
from convert.families.t5x.family import T5X
from convert.families.torch_nn.family import TorchTransformer
from convert.families.tutorial import Tutorial
from convert.families.whisper.ctranslate2 import WhisperCTranslate2
from convert.families.whisper.flax import WhisperFlax
from convert.families.whisper.names import Whisper
from convert.families.whisper.openai import WhisperOpenAI
from convert.naming.shipped import named_family, shipped_families
from transformer_spec import UserError

OURS = "twinformer"
ALL: tuple[Family, ...] = (
    TorchTransformer(),
    Marian(),
    Bart(),
    MBart(),
    PLBart(),
    M2M100(),
    Pegasus(),
    Blenderbot(),
    BlenderbotSmall(),
    FSMT(),
    T5(),
    MT5(),
    UMT5(),
    Whisper(),
    MarianFlax(),
    BartFlax(),
    MBartFlax(),
    PegasusFlax(),
    BlenderbotFlax(),
    BlenderbotSmallFlax(),
    T5Flax(),
    MT5Flax(),
    WhisperFlax(),
    MarianNpz(),
    Fairseq(),
    OpenNMT(),
    Eole(),
    T5X(),
    WhisperOpenAI(),
    WhisperCTranslate2(),
    Tutorial(),
)
HUGGING_FACE = [family for family in ALL if isinstance(family, LibraryClass)]
# Whose folders have a generation_config.json and a tokenizer of Hugging Face's.
LIBRARIES = frozenset(family.library for family in HUGGING_FACE)
HALF, NEAR_TIE = 0.5, 0.03
TABLES: dict[str, Family] = {family.name: family for family in shipped_families()}
FAMILIES: dict[str, Family] = {}


def register(family: Family) -> None:
    """Have files of a family recognized and read, and written where it has containers.

    The calls of the library know it from now on, in this process. Raises UserError where the name
    is another family's.
    """
    if family.name in (OURS, *FAMILIES):
        raise UserError(f"{family.name} is the name of a family that there is; choose another")
    FAMILIES[family.name] = family


for known in (*ALL, *TABLES.values()):
    register(known)


def family_of_table(given: str) -> Family:
    """The family of a table: a shipped one by its name, or of a file with another name."""
    family = named_family(given)
    if family.name == OURS or family.name in FAMILIES.keys() - TABLES.keys():
        raise UserError(f"{given} has the name {family.name}, which is another family's; rename it")
    return family


def recognize(source: Source) -> Family:
    """The one family whose names and settings these are; none or several are a UserError.

    A table that has a place for every name says more than the class inside a module, unless a map
    says what stands around that class.
    """
    fitting = [family for family in FAMILIES.values() if family.recognizes(source)]
    if any(family.name in TABLES for family in fitting):
        wrapped = [family for family in fitting if family.wrapped]
        others = [family for family in fitting if not family.wrapped]
        fitting = wrapped if wrapped and source.wrapper else others
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join((OURS, *FAMILIES))
    if fitting:
        found = " and of ".join(family.name for family in fitting)
        raise UserError(f"{source.tensors.label} could be of {found}; say which with --from")
    said = (source.settings or {}).get("model_type")
    if isinstance(said, str) and is_hugging_face(source):
        types = ", ".join(family.model_type for family in HUGGING_FACE)
        raise UserError(
            f"{source.tensors.label} is of model_type {said!r} by its config.json, which is not "
            f"read; those of Hugging Face that are: {types}{_nearest(source)}"
        )
    some = ", ".join(list(source.tensors)[:3])
    unknown = f"{source.tensors.label} has names of no known family ({some}, ...)"
    if source.other is not None and source.other.is_damaged:
        raise UserError(
            f"{unknown}, and the file that may say whose they are cannot be read: "
            f"{source.other.told}; {MEND}"
        )
    raise UserError(
        f"{unknown}; known: {known}; say which with --from{_nearest(source)}{_no_settings(source)}"
        "; for a module of your own, python -m convert names proposes a table of its names"
    )


def _no_settings(source: Source) -> str:
    """What there is in the place of the file which would say what is computed, where it is none."""
    if source.settings:
        return ""
    there = source.other.told if source.other else "no config.json of its library lies beside it"
    return f"; {there}; --config FILE gives the one that its library wrote"


def is_hugging_face(source: Source) -> bool:
    """Whether settings are those of a transformers config, of whatever class."""
    marks = {"architectures", "transformers_version", "d_model"}
    return bool(marks & (source.settings or {}).keys())


def _nearest(source: Source) -> str:
    """The classes of Hugging Face whose names are nearest, where half of all names agree."""
    likeness = {family.name: family.likeness(source) for family in HUGGING_FACE}
    best = max(likeness.values())
    near = [name for name in likeness if likeness[name] >= max(best - NEAR_TIE, HALF)]
    if not near:
        return ""
    near.sort(key=lambda name: -likeness[name])
    shares = ", ".join(f"{name} ({likeness[name]:.0%})" for name in near)
    verb = "is" if len(near) == 1 else "are"
    return f"; by the share of names the nearest {verb} {shares}; names do not say what is computed"
