"""Tables of ids as files hold them."""

import json

import pytest

from training_recipe.text.number_tables import read_table

YAML = b"</s>: 0\n<unk>: 1\n'null': 2\nyes: 3\n1.5: 4\n\"\\u2581a\": 5\n~: 6\n"


def read(data, kind, first=()):
    return read_table({"file": "t", "format": kind}, list(first), {"t": data}, ())


def test_json_and_yaml():
    table = {"</s>": 0, "<unk>": 1, "\u2581a": 7}
    assert read(json.dumps(table).encode(), "json") == table
    words = ["</s>", "<unk>", "null", "yes", "1.5", "\u2581a", "~"]
    assert read(YAML, "yaml") == {word: index for index, word in enumerate(words)}


def test_lines_of_a_dictionary():
    data = "\u2581a 5\n\u2581b 3\r\n# 1 #fairseq:overwrite\n".encode()
    assert read(data, "lines", ["<s>", "<pad>"]) == {
        "<s>": 0, "<pad>": 1, "\u2581a": 2, "\u2581b": 3, "#": 4,
    }  # fmt: skip


def test_pieces_in_order():
    assert read_table({"pieces": ["a", "b"]}, None, {}, ()) == {"a": 0, "b": 1}
    assert read_table({"from": 1}, ["x"], {}, ["p", "q", "r"]) == {"x": 0, "q": 1, "r": 2}


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        (b'{"a": 1', "json", "cut short or damaged"),
        (b"[1]", "json", "no pieces"),
        (b"{}", "json", "no pieces"),
        (b'{"a": "1"}', "json", "'a' the id '1'"),
        (b'{"a": true}', "json", "'a' the id True"),
        (b'{"a": -1}', "json", "'a' the id -1"),
        (b'{"a": 1, "b": 1}', "json", "'a' and 'b' one id, 1"),
        (b"\xff\xfe", "json", "not UTF-8"),
        (b"a: [", "yaml", "cut short or damaged"),
        (b"a: x\n", "yaml", "'a' the id 'x'"),
        (b"- a\n", "yaml", "no pieces"),
        (b"a 1\nb\n", "lines", "line 2"),
        (b"a 1\na 2\n", "lines", "'a' twice"),
        (b"", "lines", "line 1"),
        (b"{}", "toml", "'toml'"),
    ],
)
def test_damage(data, kind, says):
    with pytest.raises(ValueError, match=says):
        read(data, kind)


def test_no_table():
    for table in (None, {}, {"file": "other", "format": "json"}):
        with pytest.raises(ValueError, match="table"):
            read_table(table, None, {"t": b"{}"}, ())
