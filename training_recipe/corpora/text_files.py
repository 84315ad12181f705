"""Sentence pairs out of text files: parallel files and tables, plain or gzip-compressed."""

import csv
import gzip
import io
import textwrap
import zlib
from collections.abc import Sequence
from pathlib import Path

from transformer_spec.errors import Faults

DELIMITERS = {".tsv": "\t", ".csv": ","}
DELIMITER_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}
UTF8_MARK = "\ufeff"

# What columns of texts are called, in any case; hardly a text begins with two of these.
HEADINGS = frozenset(
    """
    question answer questions answers source target sources targets src tgt trg input output
    inputs outputs text text1 text2 text_1 text_2 sentence sentence1 sentence2 sentence_1 sentence_2
    source_text target_text input_text output_text source_sentence target_sentence translation
    translations reference references original word words spelling pronunciation phonemes sound
    prompt response completion id index number label labels score foreign native
    english german french spanish italian portuguese dutch russian chinese japanese korean arabic
    ar bg bn ca cs da de el en es et fa fi fr he hi hr hu id it ja ko lt lv ms nl pl pt ro ru sk sl
    sr sv ta th tr uk ur vi zh eng deu ger fra fre spa ita por rus zho chi jpn kor ara
    질문 답변 원문 번역문 번역 영어 한국어 문제 대답
    """.split()
)

Pair = tuple[str, str]


def is_table(name: str) -> bool:
    """Whether a file's name says that it is a table: .tsv or .csv, with .gz or without."""
    return Path(name.removesuffix(".gz")).suffix.lower() in DELIMITERS


def read_parallel(prefix: str, languages: tuple[str, str], faults: Faults) -> list[Pair]:
    """Line n of PREFIX.SOURCE with line n of PREFIX.TARGET; faults are added, not raised."""
    names = [f"{prefix}.{language}" for language in languages]
    sides = [read_lines(name, faults) for name in names]
    source, target = sides
    if source is None or target is None:
        return []
    if len(source) != len(target):
        faults.add(
            f"{names[0]} has {len(source):,} lines and {names[1]} has {len(target):,}; "
            "line n of one must belong to line n of the other"
        )
        return []
    return list(zip(source, target, strict=True))


def read_lines(name: str, faults: Faults) -> list[str] | None:
    """The stripped lines of a file or of its .gz form; None, and a fault, if it cannot be read."""
    text = _read_text(name, faults)
    return None if text is None else split_lines(text)


def split_lines(text: str) -> list[str]:
    """The stripped lines of a text; only a line feed ends one.

    str.splitlines would also split at U+2028 and its like.
    """
    lines = text.removesuffix("\n").split("\n") if text else []
    return [line.strip() for line in lines]


def read_table(name: str, columns: Sequence[str], faults: Faults, notes: list[str]) -> list[Pair]:
    """Two columns of a .tsv or .csv file; faults are added, not raised.

    Columns are header names or, all of them digits, numbers from 1 in a file without a header.
    Since such a file may have one all the same, a note says what its first line was taken for. A
    line break inside a quoted field becomes a space.
    """
    text = _read_text(name, faults)
    if text is None:
        return []
    rows = _rows(name, text, faults)
    if not rows:
        return []
    if _is_cut_otherwise(name, rows[0][1], faults):
        return []
    if all(column.isdecimal() for column in columns):
        positions = _numbered(name, columns, len(rows[0][1]), faults)
        rows = _without_header(name, rows, positions, notes) if positions else rows
    else:
        positions = _named(name, columns, [field.strip() for field in rows[0][1]], faults)
        rows = rows[1:]
    return _select(name, rows, positions, faults) if positions else []


def _read_text(name: str, faults: Faults) -> str | None:
    path = existing(name, faults)
    if path is None:
        return None
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        faults.add(f"{path} is not a complete gzip file: {error}")
    except OSError as error:
        faults.add(f"cannot read {path}: {error.strerror or error}")
    else:
        return decode_utf8(path, content, faults)
    return None


def existing(name: str, faults: Faults) -> Path | None:
    """The file of a name, compressed or not; that there is none is added to the faults."""
    tried = [name] if name.endswith(".gz") else [name, f"{name}.gz"]
    for candidate in map(Path, tried):
        if candidate.exists():
            return candidate
    faults.add(f"there is no file {' or '.join(tried)}")
    return None


def decode_utf8(path: Path | str, content: bytes, faults: Faults) -> str | None:
    """The text of some bytes without a byte order mark; None, and a fault, if not UTF-8."""
    try:
        return content.decode("utf-8").removeprefix(UTF8_MARK)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        faults.add(
            f"{path} is not UTF-8: line {line:,}, byte offset {error.start:,} holds "
            f"0x{content[error.start]:02x}; save the file as UTF-8"
        )
        return None


def _delimiter(name: str) -> str:
    return DELIMITERS[Path(name.removesuffix(".gz")).suffix.lower()]


def _rows(name: str, text: str, faults: Faults) -> list[tuple[int, list[str]]]:
    """The rows of a table, each with the number of its last line; blank lines are left out."""
    delimiter = _delimiter(name)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        faults.add(
            f"{name}, line {reader.line_num:,}: {error}; a field that begins with a quotation mark "
            "must end with one, and marks inside it are written twice"
        )
        return []
    if not rows:
        faults.add(f"{name} is empty")
    swallowed = [number for number, row in rows if any("\n" in f and "\t" in f for f in row)]
    if swallowed and delimiter == "\t":
        faults.add(
            f"{name}: {len(swallowed):,} of {len(rows):,} rows have a field with tabs and ends of "
            f"lines in it, the first up to line {swallowed[0]:,}; a quotation mark that begins a "
            "field goes on to the next one: put such a field in marks, and write its own twice"
        )
    return rows


def _is_cut_otherwise(name: str, first: list[str], faults: Faults) -> bool:
    """Whether the first row is one field with other delimiters in it, which is a fault."""
    own = _delimiter(name)
    others = [d for d in DELIMITER_NAMES if len(first) == 1 and d != own and d in first[0]]
    if not others:
        return False
    wanted, ending = DELIMITER_NAMES[own], Path(name.removesuffix(".gz")).suffix
    found = " and ".join(DELIMITER_NAMES[delimiter] for delimiter in others)
    line = textwrap.shorten(first[0].strip(), 60, placeholder="...")
    advice = f"write it with {wanted}"
    advice += ", or call it .tsv" if others == ["\t"] else ""
    advice += ", or call it .csv" if others == [","] else ""
    faults.add(
        f"{name}: the columns of a {ending} file stand between {wanted}, and its first line, "
        f"{line!r}, has {found} alone; {advice}"
    )
    return True


def _numbered(name: str, columns: Sequence[str], width: int, faults: Faults) -> list[int]:
    wrong = [column for column in columns if not 1 <= int(column) <= width]
    if wrong:
        said = " and ".join(f"no column {column}" for column in wrong)
        faults.add(f"{name} has {said}; its first line has columns 1 to {width}")
    return [] if wrong else [int(column) - 1 for column in columns]


def _without_header(
    name: str, rows: list[tuple[int, list[str]]], positions: list[int], notes: list[str]
) -> list[tuple[int, list[str]]]:
    """The rows of numbered columns without a line that names the columns; a note says which."""
    fields = [rows[0][1][position].strip() for position in positions]
    shown = ",".join(fields)
    names = {field.casefold() for field in fields}
    if names == {"q", "a"} or (len(names) == 2 and names <= HEADINGS):
        notes.append(
            f"{name}: the first line, {shown!r}, is taken for a header and left out; "
            f"--columns {shown} says so"
        )
        return rows[1:]
    short = textwrap.shorten(shown, 60, placeholder="...")
    notes.append(f"{name}: the first line, {short!r}, is a pair, as columns go by number")
    return rows


def _named(name: str, columns: Sequence[str], header: list[str], faults: Faults) -> list[int]:
    wrong = [column for column in columns if header.count(column) != 1]
    if wrong:
        said = (f"{_times(header.count(column))} {column!r}" for column in wrong)
        faults.add(
            f"{name} has {' and '.join(said)}; its header has: {', '.join(header)} "
            "(for a file without a header give column numbers, as in 1,2)"
        )
    return [] if wrong else [header.index(column) for column in columns]


def _times(count: int) -> str:
    return f"{count} columns" if count else "no column"


def _select(
    name: str, rows: list[tuple[int, list[str]]], positions: list[int], faults: Faults
) -> list[Pair]:
    short = [(line, len(row)) for line, row in rows if len(row) <= max(positions)]
    if short:
        line, fields = short[0]
        faults.add(
            f"{name}: {len(short):,} of {len(rows):,} rows have too few fields, the first at line "
            f"{line:,} with {fields}, where column {max(positions) + 1} is needed"
        )
        return []
    source, target = positions
    return [(_one_line(row[source]), _one_line(row[target])) for _, row in rows]


def _one_line(field: str) -> str:
    broken = "\n" in field or "\r" in field
    return " ".join(field.splitlines()).strip() if broken else field.strip()
