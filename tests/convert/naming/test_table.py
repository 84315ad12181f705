"""Tables of names as texts: what they say, and all of their faults at once."""

import re
import tomllib

import pytest

from convert.families.registry import family_of_table
from convert.naming.parsing import parse_table, table_of
from convert.naming.shipped import shipped_families, table_text
from transformer_spec import UserError

SMALL = """
name = "small"
about = "a module for tests"
[config]
embedding_scale = "float32(sqrt(D))"
[leaves]
linear = { weight = "kernel", layout = "(in, out)" }
[names]
"words" = "encoder.embedding"
"layer_{i+1}.qkv" = { to = [
  "encoder.enc_layers.{i}.multiheadattention.fcQ",
  "encoder.enc_layers.{i}.multiheadattention.fcK",
  "encoder.enc_layers.{i}.multiheadattention.fcV",
], layout = "(in, heads parts dim)" }
"layer_{i+1}.fc" = "encoder.enc_layers.{i}.ffn.fc1"
"scale" = { to = "encoder.final_norm.weight", layout = "()" }
"""


def entries(table) -> dict:
    return {
        entry.theirs: (entry.ours, entry.layout.text, entry.optional) for entry in table.entries
    }


def test_modules_become_their_tensors():
    table = parse_table(SMALL, "small.toml")
    found = entries(table)
    inner = "encoder.enc_layers.{i}.ffn.fc1"
    assert found["layer_{i+1}.fc.kernel"] == ((f"{inner}.weight",), "(in, out)", False)
    assert found["layer_{i+1}.fc.bias"] == ((f"{inner}.bias",), "(out)", True)
    ours, layout, _ = found["layer_{i+1}.qkv.bias"]
    assert layout == "(heads parts dim)" and len(ours) == 3
    assert found["words.weight"][0] == ("encoder.embedding.weight",)
    assert found["scale"][1] == "()" and "scale.bias" not in found
    assert table.entries[1].name(0) == "layer_1.qkv.kernel"
    assert table.forms == (table,)


VARIANTS = """
[[variants]]
config = { output_scale = 1.0 }
names = { "out" = "decoder.finalFc" }
[[variants]]
config = { output_scale = "1/sqrt(D)", embedding_scale = 2.0 }
"""


def test_variants_add_to_the_rest():
    first, second = parse_table(SMALL + VARIANTS, "small.toml").forms
    assert dict(first.config) == {"embedding_scale": "float32(sqrt(D))", "output_scale": 1.0}
    assert dict(second.config) == {"embedding_scale": 2.0, "output_scale": "1/sqrt(D)"}
    assert set(entries(first)) - set(entries(second)) == {"out.kernel", "out.bias"}
    assert first.name == second.name == "small" and not second.variants


BAD = """
name = "Bad Name"
note = 3
containers = ["zip"]
extra = 1
[config]
norm_epsilon = "sqrt(X)"
activation = "tanh"
norm_positon = "pre"
[leaves]
conv = { weight = "w" }
linear = { wieght = "w" }
[names]
"a" = "encoder.embeding"
"b" = 3
"c.{i}" = "encoder.final_norm"
"d" = "encoder.enc_layers.{i}.ffn.fc1"
"e" = ["encoder.final_norm", "decoder.final_norm.weight"]
"f" = { to = "decoder.finalFc.weight", layout = "(out, inn)" }
"g" = { to = "decoder.finalFc.weight", layout = "(heads, dim, in)" }
"h" = { too = "decoder.finalFc.weight" }
"i.weight" = "decoder.final_norm.weight"
"i" = "decoder.final_norm"
[buffers]
"pe" = "(in, out)"
"pe2" = { of = ["decoders"] }
[unused]
"x" = 5
"""
TOLD = [
    "name is 'Bad Name'", "containers is \\['zip'\\]", "extra is no section", "note is 3",
    "config.norm_epsilon is 'sqrt\\(X\\)'", "config.activation", "norm_positon is no setting",
    "did you mean norm_position", "leaves.conv is no kind", "leaves.linear.wieght is not known",
    "names.a: encoder.embeding is no name of ours; did you mean encoder.embedding",
    "names.b is 3", "names.c.{i}: theirs has a layer", "names.d: ours has a layer",
    "names.e: .* are modules and tensors", "names.f.layout: .*unknown words inn",
    "names.g: .* does not have the axes", "names.h.too is not known", "names.h is",
    "i.weight has two places", "decoder.final_norm.weight is given by i.weight and by i.weight",
    "buffers.pe: .* is no table of positions", "buffers.pe2: of is", "unused.x is 5",
]  # fmt: skip


def test_all_faults_of_a_table_are_told_at_once():
    with pytest.raises(UserError) as caught:
        parse_table(BAD, "bad.toml")
    message = str(caught.value)
    for told in TOLD:
        assert re.search(told, message), told
    assert message.startswith("bad.toml is no table of names:") and "\n" in message
    assert message.count("names.a:") == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name = ", "is no TOML"),
        ("", "name is None"),
        (SMALL + "[[variants]]\nabout = 'x'\n", "variants is .*it is a list of tables"),
        (SMALL + "[variants]\nconfig = {}\n", "variants is .*it is a list of tables"),
        (SMALL + "[[variants]]\n[[variants]]\nnames = { z = 'y' }\n", "names.z: y is no name"),
        ("names = 1\nname = 'a'", "names is 1; it is a section"),
        ("name = 'a'\n[names]", "names is empty"),
    ],
)
def test_tables_that_are_none(text, told):
    with pytest.raises(UserError, match=told) as caught:
        parse_table(text, "given.toml")
    assert "given.toml" in str(caught.value)


def test_a_fault_of_every_variant_is_told_once():
    text = SMALL.replace("encoder.embedding", "encoder.embeding") + VARIANTS
    with pytest.raises(UserError) as caught:
        parse_table(text, "given.toml")
    assert len(caught.value.faults) == 1


def test_shipped_tables_differ_in_their_names():
    """No tensor set of one is that of another, whatever their variants."""
    found = [
        (family.name, {e.theirs for e in form.entries if not e.optional} | set(form.buffers))
        for family in shipped_families()
        for form in family.table.forms
    ]
    for name, needed in found:
        assert not [other for other, theirs in found if other != name and theirs == needed]
    assert all(family.table.about for family in shipped_families())


def test_a_table_of_plain_data_is_that_of_its_text():
    assert table_of(tomllib.loads(SMALL), "small.toml") == parse_table(SMALL, "small.toml")


@pytest.mark.parametrize("name", ["t5", "twinformer"])
def test_a_table_with_the_name_of_another_family(name, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(table_text("hkproj").replace('"hkproj"', f'"{name}"', 1), encoding="utf-8-sig")
    with pytest.raises(UserError, match=f"has the name {name}, which is another family's"):
        family_of_table(str(path))


def test_texts_that_are_none(tmp_path):
    text = table_text("hkproj") + '\n[unused]\n"a\\nb" = { reason = "dead", shape = ["wide"] }\n'
    text = text.replace("[names]", "[leaves.linear]\nweight = 3\n[names]", 1)
    with pytest.raises(UserError) as caught:
        parse_table(text, "mine.toml")
    assert "leaves.linear.weight is 3; give a text" in str(caught.value)
    assert "unused.a\\nb: shape is ['wide']; lengths are numbers" in str(caught.value)
