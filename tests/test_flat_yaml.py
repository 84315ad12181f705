"""The part of YAML that Marian writes; all else is refused with its line."""

import pytest

from convert.formats.flat_yaml import read_flat_yaml
from transformer_spec import UserError


class TestFlatYaml:
    text = (
        "# written by hand\n\na: 3\nb: -0.5\nc: true\nd: \"\"\ne: 'it''s'\nf: ~\ng:\nh:\n  - 1\n"
        'i:\n  []\nj: [1, x]\nk: "a\\nb"\nl: v1.0 2021-02-06 15:35:16 -0800\nm:\n- p\n- q\n'
    )

    def test_values(self):
        assert read_flat_yaml(self.text, "x") == {
            "a": 3, "b": -0.5, "c": True, "d": "", "e": "it's", "f": None, "g": None, "h": [1],
            "i": [], "j": [1, "x"], "k": "a\nb", "l": "v1.0 2021-02-06 15:35:16 -0800",
            "m": ["p", "q"],
        }  # fmt: skip

    def test_as_pyyaml_reads_it(self):
        yaml = pytest.importorskip("yaml")
        assert read_flat_yaml(self.text, "x") == yaml.safe_load(self.text)

    @pytest.mark.parametrize(
        "bad",
        [
            "{b: 1}", "&x 1", "*x", "!t 1", "|", ">", "@x", "b: c", '"open', "x # y", "[1, [2]]",
            '["b"]', "- 1", "b:",
        ],
    )  # fmt: skip
    def test_other_syntax_is_refused_with_its_line(self, bad):
        with pytest.raises(UserError, match=r"line 2 of model.npz: .* is not understood"):
            read_flat_yaml(f"a: 1\nc: {bad}", "model.npz")

    @pytest.mark.parametrize(
        "lines", ["c:1", "? c", "---", "  c: 1", "\tc: 1", "- 1", "c: 1\n  - 2", "c:\n  d: 1",
                  "c:\n  - - 1", "c:\n  - d: 1", "c:\n  - 1\n  []"],
    )  # fmt: skip
    def test_other_lines(self, lines):
        with pytest.raises(UserError, match=r"line \d of x: .* is not understood"):
            read_flat_yaml(lines, "x")

    def test_a_key_twice(self):
        with pytest.raises(UserError, match="line 2 of x: 'a' comes twice"):
            read_flat_yaml("a: 1\na: 2", "x")
