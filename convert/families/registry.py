"""Every foreign family by its name."""

from convert.families.base import Family, Source
from convert.families.fairseq.family import Fairseq
from convert.families.huggingface.bart import Bart, MBart
from convert.families.huggingface.flax import BartFlax, MarianFlax, MBartFlax
from convert.families.huggingface.m2m100 import M2M100
from convert.families.huggingface.marian import Marian
from convert.families.marian_npz.family import MarianNpz
from convert.families.opennmt.family import OpenNMT
from convert.families.torch_nn.family import TorchTransformer
from convert.families.tutorial import Tutorial
from transformer_spec import UserError

OURS = "twinformer"
ALL: tuple[Family, ...] = (
    TorchTransformer(),
    Marian(),
    Bart(),
    MBart(),
    M2M100(),
    MarianFlax(),
    BartFlax(),
    MBartFlax(),
    MarianNpz(),
    Fairseq(),
    OpenNMT(),
    Tutorial(),
)
FAMILIES: dict[str, Family] = {family.name: family for family in ALL}


def recognize(source: Source) -> Family:
    """The one family whose names and settings these are; none or several are a UserError."""
    fitting = [family for family in FAMILIES.values() if family.recognizes(source)]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join((OURS, *FAMILIES))
    if fitting:
        found = " and of ".join(family.name for family in fitting)
        raise UserError(f"{source.tensors.label} could be of {found}; say which with --from")
    some = ", ".join(list(source.tensors)[:3]) or "none"
    raise UserError(
        f"{source.tensors.label} has names of no known family ({some}, ...); "
        f"known: {known}; say which with --from"
    )
