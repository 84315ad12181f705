"""The Python code that translates with a CTranslate2 model as translate.py does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convert.exports.ctranslate2_tokens import Tokens, is_framed
from training_recipe.searching.search import Search
from training_recipe.text.byte_vocabulary import ByteVocabulary
from training_recipe.text.conventions import LANGUAGE
from training_recipe.text.published import CLEANED, PublishedVocabulary
from training_recipe.text.sentencepiece_table import SentencePieceTable
from training_recipe.text.sentinel_pieces import SentinelPieces
from training_recipe.text.tokenizers_kinds import ByteLevelBPE, TokenizerJson
from training_recipe.text.vocabulary import (
    CharacterVocabulary,
    SentencePieceVocabulary,
    Vocabulary,
)
from transformer_spec import TransformerConfig

VOCABULARY = "vocabulary"
USAGE = """\
to translate {texts} {how} translate.py {options} does{but}:
{imports}
translator = ctranslate2.Translator({folder!r})
found = translator.translate_batch(
    [{split} for text in texts],{prefix}
    beam_size={beam}, length_penalty={penalty}, patience={patience},
    min_decoding_length=0, max_decoding_length={longest}, max_input_length=0,
    suppress_sequences={suppressed},
)
for tokens in (result.hypotheses[0] for result in found):
    print({join})"""
ID_TEXTS = "`texts` (lists of source ids, the end included where the model reads one)"
IDS_IN, IDS_OUT = "[str(number) for number in text]", "[int(token) for token in tokens]"
BYTES_IN = "[chr(b) if 31 < b < 127 else f'<0x{{b:02X}}>' for b in {}.encode()]"
BYTES_OUT = "bytes([int(token[3:-1], 16)]) if token.startswith('<0x') else token.encode()"
SENTINELS = """\
{side}_pieces = lambda text: [
    piece for part in re.split('(<extra_id_[0-9]+>)', text)
    for piece in ([part] if part.startswith('<extra_id_') else {pieces})
]"""
TEXT_ALONE = "for token in tokens if token not in special"
# CTranslate2 stops at beam x patience outputs; ours goes on while a better one is possible.
PATIENCE = 2
BEAM, PENALTY = 5, 1.0
EXACTLY = " (with beam_size=1 as that does; a beam ends otherwise there)"


@dataclass
class Code:
    """Imports, statements, and the expressions that cut a text and join tokens."""

    imports: list[str] = field(default_factory=lambda: ["import ctranslate2"])
    statements: list[str] = field(default_factory=list)
    split: str = IDS_IN
    join: str = IDS_OUT

    def add(self, line: str, statement: str = "") -> None:
        """An import and, unless it is there already, a statement below all imports."""
        if line not in self.imports:
            self.imports.append(line)
        if statement and statement not in self.statements:
            self.statements.append(statement)


def usage(config: TransformerConfig, tokens: Tokens, folder: Path, search: Search | None) -> str:
    """Code that translates with the model in a folder; ``search`` is what it was published with."""
    code, home = Code(), folder / VOCABULARY
    if tokens.pair is not None:
        _cut(code, tokens, home)
        _join(code, tokens.pair[1], len(tokens.target), home)
    first = _forced(code, tokens, search)
    longest = config.max_length
    rule = "--rule exact " if search is not None and search.rule != "exact" else ""
    return USAGE.format(
        texts=ID_TEXTS if tokens.pair is None else "`texts`",
        how="as" if search is None else "much as",
        but="" if search is None else EXACTLY,
        imports="\n".join([*code.imports, *code.statements]),
        folder=str(folder),
        split=code.split,
        join=code.join,
        longest=longest,
        prefix="" if first is None else f"\n    target_prefix=[[{first}]] * len(texts),",
        suppressed=_listed(tokens.suppressed(config)),
        options=f"{rule}--beam {BEAM} --length-penalty {PENALTY} --max-length {longest}",
        beam=BEAM,
        penalty=PENALTY,
        patience=PATIENCE,
    )


def _forced(code: Code, tokens: Tokens, search: Search | None) -> str | None:
    """What every output begins with: the language, or what the model was published with."""
    target = tokens.pair[1] if tokens.pair else None
    if isinstance(target, PublishedVocabulary) and LANGUAGE in target.conventions.before:
        return _language(code, target, tokens.target, "output_language")
    first = search.forced_first_id if search else None
    return None if first is None else repr(tokens.target[first])


def _language(code: Code, vocabulary: Vocabulary, names: Sequence[str], variable: str) -> str:
    """The token of a language, or the name of a variable where it is to be chosen."""
    if vocabulary.language is not None:
        return repr(names[vocabulary.languages[vocabulary.language]])
    some = names[next(iter(vocabulary.languages.values()))]
    line = f"{variable} = {some!r}  # choose one of {len(vocabulary.languages)}"
    if line not in code.statements:
        code.statements.append(line)
    return variable


def _cut(code: Code, tokens: Tokens, home: Path) -> None:
    """How a text of the source becomes tokens."""
    assert tokens.pair is not None
    source = tokens.pair[0]
    pieces = _loaded(code, source, "source", home)
    if isinstance(source, PublishedVocabulary):
        code.split = _framed(code, source, pieces, tokens)
    elif pieces:
        code.split = pieces.format("text.strip()")
    elif source.kind == CharacterVocabulary.kind:
        code.split = f"list(text.strip(){'.translate(small)' if tokens.small else ''})"
    else:
        code.split = "text.split()"
    if tokens.small:
        capitals, letters = "".join(map(chr, tokens.small)), "".join(tokens.small.values())
        code.statements.append(f"small = str.maketrans({capitals!r}, {letters!r})")


def _framed(code: Code, source: PublishedVocabulary, pieces: str, tokens: Tokens) -> str:
    """The pieces of a text between what the model reads around them."""
    if isinstance(source, SentinelPieces):
        return f"[*{pieces.format(_begun(code, source))}{_and(code, source, tokens)}]"
    if source.begins_with_target and source.language is None:
        marks = source.conventions.marks
        assert marks is not None
        code.statements.append(f"# texts begin with the language of the output: {_some(source)}")
        start = f"text.strip().partition({marks[1]!r})[0] + {marks[1]!r}"
        rest = pieces.format(f"text.partition({marks[1]!r})[2].strip()")
        return f"[{start}, *{rest}{_and(code, source, tokens)}]"
    named = _named(code, source, tokens, source.conventions.before)
    if source.begins_with_target:
        named.append(_language(code, source, tokens.source, "output_language"))
    before = "".join(f"{name}, " for name in named)
    return f"[{before}*{pieces.format('text.strip()')}{_and(code, source, tokens)}]"


def _begun(code: Code, source: SentinelPieces) -> str:
    """A text, behind the language of the output where the model reads that as text."""
    if not source.begins_with_target:
        return "text.strip()"
    if source.language is None:
        code.statements.append(f"# texts begin with the language of the output: {_some(source)}")
        return "text.strip()"
    marks = source.conventions.marks or ("", "")
    return f"{f'{marks[0]}{source.language}{marks[1]} '!r} + text.strip()"


def _and(code: Code, source: PublishedVocabulary, tokens: Tokens) -> str:
    """What follows a text."""
    named = _named(code, source, tokens, source.conventions.after)
    return "".join(f", {name}" for name in named)


def _named(
    code: Code, source: PublishedVocabulary, tokens: Tokens, parts: Sequence[int | str]
) -> list[str]:
    """Expressions for parts of a frame."""
    return [
        repr(tokens.source[part])
        if isinstance(part, int)
        else _language(code, source, tokens.source, "input_language")
        for part in parts
    ]


def _some(source: PublishedVocabulary) -> str:
    marks = source.conventions.marks or ("", "")
    return ", ".join(f"{marks[0]}{code}{marks[1]}" for code in list(source.languages)[:3])


def _special(target: Vocabulary, rows: int, home: Path) -> str:
    """The tokens that are no text: special ones, and rows of the table that have no token."""
    place = str(home / "target.json")
    named = f"set(json.load(open({place!r}))['special'])"
    spare = [target.token(index) for index in range(target.size, rows)]
    return f"{named} | set({spare!r})" if spare else named


def _join(code: Code, target: Vocabulary, rows: int, home: Path) -> None:
    """How tokens become a text."""
    if is_framed(target):
        code.add("import json", f"special = {_special(target, rows, home)}")
    if isinstance(target, SentencePieceTable) and target.how.get("joined"):
        joined = f"''.join(token {TEXT_ALONE}).replace('\\u2581', ' ').strip()"
    elif isinstance(target, SentencePieceTable):
        _loaded(code, target, "target", home)
        joined = f"target.decode_pieces([token {TEXT_ALONE}]).replace('\\u2581', ' ').strip()"
    elif isinstance(target, ByteVocabulary):
        joined = f"b''.join({BYTES_OUT} {TEXT_ALONE}).decode(errors='ignore')"
    elif isinstance(target, ByteLevelBPE | TokenizerJson):
        _loaded(code, target, "target", home)
        joined = f"target.decode([target.token_to_id(token) {TEXT_ALONE}])"
    elif isinstance(target, SentencePieceVocabulary):
        _loaded(code, target, "target", home)
        joined = "target.decode(tokens)"
    else:
        joined = f"{'' if target.kind == CharacterVocabulary.kind else ' '!r}.join(tokens)"
    if isinstance(target, PublishedVocabulary) and target.conventions.clean_up:
        joined += "".join(f".replace({mark!r}, {mark.strip(' ')!r})" for mark in CLEANED)
    code.join = joined


def _loaded(code: Code, vocabulary: Vocabulary, side: str, home: Path) -> str:
    """Load what cuts and joins pieces; the expression for the pieces of a text ``{}``."""
    if isinstance(vocabulary, SentencePieceVocabulary | SentencePieceTable):
        own = isinstance(vocabulary, SentencePieceTable)
        place = str(home / (vocabulary.how["model"] if own else f"{side}.model"))
        line = f"{side} = SentencePieceProcessor(model_file={place!r})"
        code.add("from sentencepiece import SentencePieceProcessor", line)
        return _split_at_sentinels(code, vocabulary, side, f"{side}.encode({{}}, out_type=str)")
    if isinstance(vocabulary, ByteVocabulary):
        return _split_at_sentinels(code, vocabulary, side, BYTES_IN)
    if isinstance(vocabulary, ByteLevelBPE):
        files = [str(home / vocabulary.how[name]) for name in ("vocabulary", "merges")]
        spaced = vocabulary.how.get("prefix_space") is True
        line = f"{side} = ByteLevelBPETokenizer(*{files!r}, add_prefix_space={spaced})"
        code.add("from tokenizers import ByteLevelBPETokenizer", line)
        return f"{side}.encode({{}}).tokens"
    if isinstance(vocabulary, TokenizerJson):
        place = str(home / vocabulary.how["tokenizer"])
        code.add("from tokenizers import Tokenizer", f"{side} = Tokenizer.from_file({place!r})")
        code.add("from tokenizers import Tokenizer", f"{side}.encode_special_tokens = True")
        return f"{side}.encode({{}}, add_special_tokens=False).tokens"
    return ""


def _split_at_sentinels(code: Code, vocabulary: Vocabulary, side: str, pieces: str) -> str:
    """The expression for pieces of a text, in which sentinels that were added are tokens."""
    if side != "source" or not isinstance(vocabulary, SentinelPieces | ByteVocabulary):
        return pieces
    if not vocabulary.conventions.added:
        return pieces
    code.add("import re", SENTINELS.format(side=side, pieces=pieces.format("part")))
    return f"{side}_pieces({{}})"


def _listed(sequences: Sequence[list[str]]) -> str:
    return "[" + ", ".join(map(repr, sequences)) + "]"
