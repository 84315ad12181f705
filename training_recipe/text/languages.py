"""Languages of a model that has several: codes that are given, and those that are near them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable

from transformer_spec.errors import UserError, printable_name

NEAR = 4  # codes that an error names
MARKED = re.compile(r"(?:>>|__|<2)(\S+?)(?:<<|__|>)")
HOW = "--languages SOURCE,TARGET"


def language_of(given: str, languages: Collection[str]) -> str:
    """The code that was given, with or without its marks (``__de__``, ``>>deu<<``).

    One that is none of ``languages`` is a UserError that names near ones.
    """
    marked = MARKED.fullmatch(given)
    code = marked[1] if marked and given not in languages else given
    if code in languages:
        return code
    shown = printable_name(given)
    if not languages:
        raise UserError(f"language {shown!r} was given, and the model has no languages to choose")
    raise UserError(f"the model has no language {shown!r}; {offered(languages, code)}")


def offered(languages: Collection[str], code: str = "") -> str:
    """What a model has, for an error: codes near to one, or some, and how many there are."""
    close = near(code, languages)
    some = ", ".join(close or list(languages)[:NEAR])
    if close:
        return f"near ones are {some} (give {HOW})"
    kind = f"{len(languages):,}, such as " if len(languages) > NEAR else ""
    return f"it has {kind}{some} (give {HOW})"


def near(code: str, languages: Iterable[str]) -> list[str]:
    """Codes that begin as the given one does, or whose language is written much like it.

    Libraries write one language as de, deu, de_DE and deu_Latn.
    """
    if not code:
        return []
    wanted, known = code.lower(), {each.lower(): each for each in languages}
    head = re.split("[_-]", wanted)[0]
    heads: dict[str, list[str]] = {}
    for each in known:
        heads.setdefault(re.split("[_-]", each)[0], []).append(each)
    alike = [each for each in known if each.startswith(wanted)]
    alike += difflib.get_close_matches(wanted, known, n=NEAR, cutoff=0.7)
    close = difflib.get_close_matches(head, heads, n=NEAR, cutoff=0.6)
    alike += [each for part in (head, head[:2], *close) for each in heads.get(part, [])]
    alike += [each for each in known if len(head) == 2 and each.startswith(head)]
    return [known[each] for each in dict.fromkeys(alike)][:NEAR]
