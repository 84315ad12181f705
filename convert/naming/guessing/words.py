"""What words in names say: halves, places in a layer, and roles."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")
ENCODER, DECODER = "encoder", "decoder"
SELF, CROSS, FFN = "self", "cross", "ffn"
STRONG, WEAK = 10.0, 3.0
_ENC, _DEC = "enc(?!od)|encode|src|source", "dec(?!od|ay)|decode|tgt|trg|targ"
HALVES = {
    ENCODER: re.compile(rf"(?!.*(dec|tgt|trg))({_ENC})\w*"),
    DECODER: re.compile(rf"(?!enc|src)({_DEC})\w*"),
}
PLACES = {
    SELF: re.compile(r"self\w*|slf\w*|masked|causal|tgt|trg|target|dec(oder)?"),
    CROSS: re.compile(r"cross\w*|src|source|enc(?!oding)\w*|mem(ory)?|context|inter|xattn|xatt"),
    FFN: re.compile(
        r"ffn?n?|ffw|feed\w*|forward|mlp\w*|fc|position\w*|point\w*|dense|intermediate|expert"
    ),
}
ATTENTION = re.compile(
    r"att\w*|mha|heads?|multi\w*|(selfatt|crossatt|slfatt)\w*|qkv|q|k|v|wq|wk|wv"
)
_BEFORE, _AFTER = "(w|fc|to|lin|linear|proj|m)?", "(s|w|proj|linear|lin|layer|net|mat)?"
_LEAST = "(q|quer(y|ie))", "(k|key)", "(v|val|value)"
ROLES = {
    **{
        f"fc{letter}": re.compile(_BEFORE + word + _AFTER)
        for letter, word in zip("QKV", _LEAST, strict=True)
    },
    "fcOut": re.compile(
        r"(w|fc|to|lin)?(o|out|output|outputs)(proj|w|s)?|concat|unify\w*|merge\w*"
    ),
    "fc1": re.compile(r"in|inner|up|expand|hidden|intermediate|first|gate|wi|fc1"),
    "fc2": re.compile(r"out|output|down|contract|second|last|wo|fc2"),
    "fc3": re.compile(r"up|third|fc3"),
}
LIKELY = {"fcOut": re.compile(r"proj\w*|fc|dense|final|linear|lin")}
POSITIONS = re.compile(r"pos\w*|pe|wpe|timing|sinusoid\w*")
TABLE = re.compile(r"(?!un)\w*emb\w*|lut|tok\w*|word\w*|vocab\w*|wte|lookup|table|shared")
LOGITS = re.compile(
    r"out\w*|gen\w*|proj\w*|prj|linear|fc|lm|head|logits?\w*|dense|final\w*|classifier|cls|"
    r"predict\w*|unemb\w*"
)
NORM = re.compile(r"\w*norm\w*|ln|n")
DEAD = re.compile(r"\w*mask\w*|tril|triu|causal|scale|ids|step|count|tracked")
BIASES = re.compile(r"b|bias\w*|beta|shift|offset")
WEIGHTS = re.compile(r"w|weights?|kernel|scale|gamma|gain|g|a|alpha|embeddings?|lut|table")
JOINED = re.compile(r"([wb])(?=(q|k|v|o|qs|ks|vs|qkv|kv|out|in)$)")


@cache
def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in small letters; numbers are words of their own."""
    return tuple(word.lower() for word in WORD.findall(name.replace("{i}", ".")))


@cache
def has(pattern: re.Pattern[str], name: str) -> bool:
    """Whether a word of the name is of a kind."""
    return any(pattern.fullmatch(word) for word in words_of(name))


def half_of(name: str) -> str | None:
    """The half that a name says: by the first of its parts that says one alone."""
    for part in name.split("."):
        said = {half for half, pattern in HALVES.items() if has(pattern, part)}
        if len(said) == 1:
            return said.pop()
    return None


def place_score(place: str, path: str) -> float:
    """How well a name inside a layer fits a place in it."""
    said = {one for one, pattern in PLACES.items() if has(pattern, path)}
    attends = has(ATTENTION, path)
    if attends:
        said -= {FFN}
    if {SELF, CROSS} <= said:  # of enc_dec_attention the encoder says more
        said -= {SELF}
    if place in said:
        return STRONG
    if said:
        return -STRONG
    return -STRONG if attends and place == FFN else 0.0


def role_score(role: str, own: str, roles: Iterable[str]) -> float:
    """How well a module's own name fits a role, among those that it may have."""
    if has(ROLES[role], own):
        return STRONG
    if any(has(ROLES[other], own) for other in roles):
        return -STRONG
    return WEAK if role in LIKELY and has(LIKELY[role], own) else 0.0


def kind_of(path: str) -> re.Pattern[str] | None:
    """Which kind of table a path says: positions wherever it says so, else by its last word."""
    if has(POSITIONS, path):
        return POSITIONS
    for word in reversed(words_of(path)):
        for kind in (TABLE, LOGITS):
            if kind.fullmatch(word):
                return kind
    return None


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A key that sorts names with their numbers as numbers."""
    parts = re.split(r"(\d+)", name)
    return tuple((1, int(part)) if part.isdecimal() else (0, part) for part in parts)


def is_bias(leaf: str) -> bool:
    """Whether a tensor's last name is that of a bias."""
    words = [word for word in words_of(leaf) if not word.isdecimal()]
    joined = any(match[1] == "b" for match in map(JOINED.match, words) if match)
    return joined or any(BIASES.fullmatch(word) for word in words)


def stem_of(leaf: str) -> str:
    """A tensor's last name without what says weight or bias: that of both together."""
    words = [JOINED.sub("", word) for word in words_of(leaf)]
    kept = [w for w in words if not (BIASES.fullmatch(w) or WEIGHTS.fullmatch(w))]
    return "_".join(kept)
