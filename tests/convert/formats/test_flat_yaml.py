"""The part of YAML that Marian writes; all else is refused with its line."""

import time

import pytest
from messages import saying

from convert.formats.flat_yaml import read_flat_yaml
from transformer_spec import UserError


class TestFlatYaml:
    text = (
        "# written by hand\n\na: 3\nb: -0.5\nc: true\nd: \"\"\ne: 'it''s'\nf: ~\ng:\nh:\n  - 1\n"
        'i:\n  []\nj: [1, x]\nk: "a\\nb"\nl: v1.0 2021-02-06 15:35:16 -0800\nm:\n- p\n- q\n'
        "n: 1e-06\no: no\np: 2021-02-06\nq: 010\nr: 1:30\ns: x # y\n"
    )

    def test_values(self):
        assert read_flat_yaml(self.text, "x") == {
            "a": 3, "b": -0.5, "c": True, "d": "", "e": "it's", "f": None, "g": None, "h": [1],
            "i": [], "j": [1, "x"], "k": "a\nb", "l": "v1.0 2021-02-06 15:35:16 -0800",
            "m": ["p", "q"], "n": 1e-6, "o": "no", "p": "2021-02-06", "q": 10,
            "r": "1:30", "s": "x",
        }  # fmt: skip

    @pytest.mark.parametrize(
        "bad", ["{b: 1}", "&x 1", "*x", "!t 1", "!!python/object:os.system x", "@x", "b: c",
                '"open', "[1, [2]]", "- 1", "b:", "[1, &x 2]"],
    )  # fmt: skip
    def test_other_syntax_is_refused_with_its_line(self, bad):
        with pytest.raises(UserError, match=r"line [23] of model\.npz .*not understood"):
            read_flat_yaml(f"a: 1\nc: {bad}", "model.npz")

    @pytest.mark.parametrize(
        "lines", ["c:1", "? [c]", "", "- 1", "c: 1\n  - 2:", "c:\n  d: 1", "c:\n  - - 1",
                  "c:\n  - d: 1", "c:\n  - 1\n  []", "1: 2", "c: 1\n--- \nd: 1"],
    )  # fmt: skip
    def test_other_lines(self, lines):
        with pytest.raises(UserError, match=r"line \d of x .*not understood"):
            read_flat_yaml(lines, "x")

    def test_a_key_twice(self):
        with pytest.raises(UserError, check=saying("line 2 of x", "'a'", "twice")):
            read_flat_yaml("a: 1\na: 2", "x")

    def test_bombs(self):
        """Aliases of aliases, merged keys, nesting without end, a text without end."""
        layers = "".join(f"{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
        merged = "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nc: {<<: [*b, *b]}\n"
        start = time.process_time()
        for text in ("0: &a0 1\n" + layers, merged, "a: " + "[" * 100_000, "a: " + "x" * 2**21):
            with pytest.raises(UserError, match="x is no|not understood"):
                read_flat_yaml(text, "x")
        assert time.process_time() - start < 20
