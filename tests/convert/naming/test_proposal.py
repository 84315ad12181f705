"""Proposed tables: every tensor has a place, it is the right one where words tell, and no fault
of what is no encoder-decoder is a traceback."""

import random
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from convert_cases import fail
from messages import saying, says

from convert.__main__ import main
from convert.core.tensors import Header, Held
from convert.formats.safetensors import write_safetensors
from convert.naming.family import NamedFamily
from convert.naming.guessing.assignment import assign
from convert.naming.guessing.whole import propose
from convert.naming.guessing.words import half_of, words_of
from convert.naming.matching import Match
from convert.naming.parsing import parse_table, table_of
from convert.naming.proposal import Group, Proposal
from convert.naming.shipped import named_family, shipped_families
from convert.naming.table import HALVES, NamingTable
from transformer_spec import TransformerConfig, UserError, initial_weights

STYLES = {p.stem: p.read_text("utf-8") for p in (Path(__file__).parent / "styles").glob("*.toml")}
SIZES = {
    "source_vocab_size": 23, "target_vocab_size": 19, "hidden_dim": 12, "inner_dim": 20,
    "num_heads": 3, "num_encoder_layers": 2, "num_decoder_layers": 3, "max_length": 40,
    "head_dim": 4,
}  # fmt: skip
ODD_SIZES = {
    "as usual": {},
    "one layer": {"num_encoder_layers": 1, "num_decoder_layers": 1},
    "F is D": {"inner_dim": 12},
    "heads wider than D": {"head_dim": 5},
    "F is the width of heads": {"head_dim": 5, "inner_dim": 15},
    "F is 3 D, as many layers as squares": {
        "inner_dim": 36, "num_encoder_layers": 4, "num_decoder_layers": 4
    },
}  # fmt: skip


def header(shape: tuple[int, ...], dtype: type = np.float32) -> Header:
    return Header(shape, np.dtype(dtype))


def config_of(table: NamingTable, **more) -> TransformerConfig:
    """A small config that a table can hold."""
    ours = {name for entry in table.entries for name in entry.ours}

    def some(*ends: str) -> bool:
        return any(name.endswith(ends) for name in ours)

    block = any("block" in entry.layout.text for entry in table.entries)
    fields = {k: v for k, v in table.config.items() if not str(v).endswith(")")} | SIZES
    fields |= {f"{name}_norm": some(f"{name}_norm.weight") for name in ("final", "embedding")}
    fields |= {"gated_ffn": some("fc3.weight"), "attention_output_bias": some("fcOut.bias")}
    fields["attention_bias"] = some("fcQ.bias") and not block
    if fields.get("tied_embeddings", "none") in ("all", "source_target"):
        fields["source_vocab_size"] = fields["target_vocab_size"]
    for half in HALVES:
        if any(half in buffer.halves for buffer in table.buffers.values()):
            fields[f"{half}_positions"] = "sinusoidal"
        elif f"{half}.pos_embedding.weight" in ours:
            fields[f"{half}_positions"] = "learned"
    return TransformerConfig.from_dict(fields | more)


def headers_of(table: NamingTable, **more) -> dict[str, Header]:
    """Names and shapes of a state dict of the table's module, a layer after the other."""
    return dict(NamedFamily(table).written(config_of(table, **more)).tensors)


def places(table: NamingTable, headers) -> dict[str, tuple]:
    """What every tensor is, and how it lies."""
    match = Match(table, headers, "all")
    found = {name: (one.targets, one.entry.layout.axes) for name, one in match.placed.items()}
    buffers = {name: table.buffers[name] for name in match.buffers}
    return found | {n: (one.layout.axes, sorted(one.halves)) for n, one in buffers.items()}


def proposed(headers) -> Proposal:
    return propose(headers, "model.pt", {"num_heads": 3})


def assert_right(table: NamingTable, headers) -> Proposal:
    """The proposal covers all, is read back from its text, and is the table."""
    found = proposed(headers)
    assert not found.holes
    assert tomllib.loads(found.text) == {k: v for k, v in found.content.items() if v != {}}
    mine = parse_table(found.text, "text")
    tied = str(mine.config.get("tied_embeddings", "none"))
    kinds = {half: mine.config.get(f"{half}_positions") for half in HALVES}
    assert Match(mine.storing_positions(kinds), headers, tied).faults.messages == []
    assert places(mine, headers) == places(table, headers)
    return found


def exchanged(found: Proposal, group: Group, ours: Sequence[str]) -> NamingTable:
    """The table with names of one tensor each being others of ours."""
    names = {**found.content["names"], **dict(zip(group.theirs, ours, strict=True))}
    return table_of({**found.content, "names": names}, "exchanged")


def one_of_each(table: NamingTable) -> list[NamingTable]:
    """The forms of a table whose tensors differ."""
    alone = [replace(form, variants=()) for form in reversed(table.forms)]
    return list({tuple(headers_of(form)): form for form in alone}.values())


SHIPPED = [(f.name, form) for f in shipped_families() for form in one_of_each(f.table)]


@pytest.mark.parametrize(("name", "form"), SHIPPED, ids=[name for name, _ in SHIPPED])
def test_published_modules(name: str, form: NamingTable) -> None:
    headers = headers_of(form)
    if name == "jadore801120":  # the norm of a half is before its layers, and lies behind them
        found = proposed(headers)
        (group,) = (g for g in found.groups if len(g.theirs) == 2 and g.spare)
        assert places(exchanged(found, group, group.spare), headers) == places(form, headers)
    else:
        assert_right(form, headers)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("sizes", ODD_SIZES)
def test_other_styles(style: str, sizes: str) -> None:
    table = parse_table(STYLES[style], style)
    assert_right(table, headers_of(table, **ODD_SIZES[sizes]))


@pytest.mark.parametrize("style", ["keras-like", "linen", "flat"])
def test_words_tell_whatever_the_order(style: str) -> None:
    table = parse_table(STYLES[style], style)
    headers = headers_of(table)
    found = assert_right(table, dict(sorted(headers.items())))
    squares = [g for g in found.groups if any("fcQ" in name for name in g.ours)]
    assert all(group.told for group in squares)


def test_guesses_say_so() -> None:
    table = named_family("annotated-transformer").table
    found = assert_right(table, headers_of(table))
    comments = found.comments
    query = "encoder.layers.{i}.self_attn.linears.0"
    assert comments["names", query] == "guess: by order; or fcK, fcV, fcOut"
    assert ("names", "encoder.layers.{i}.feed_forward.w_1") not in comments
    assert comments["config", "norm_position"] == 'guess: or "post"'
    assert comments["config", "num_heads"] == "as given"
    assert found.guesses == sum("# guess: " in line for line in found.text.splitlines())
    assert found.text == proposed(headers_of(table)).text


def test_exchanges_are_tables_too() -> None:
    table = named_family("annotated-transformer").table
    headers = headers_of(table)
    found = proposed(headers)
    (group,) = (g for g in found.groups if "encoder.layers.{i}.self_attn.linears.0" in g.theirs)
    assert not group.told and len(group.ours) == 4
    tables = [exchanged(found, group, ours) for ours in permutations(group.ours)]
    assert len({tuple(entry.ours for entry in one.entries) for one in tables}) == 24
    assert all(not Match(one, headers).faults.messages for one in tables)


def test_parts_of_a_fused_matrix_are_a_guess() -> None:
    found = proposed(headers_of(parse_table(STYLES["fused"], "fused")))
    key = "encoder.blocks.{i}.attn.in_proj_weight"
    assert "(heads parts dim, in)" in found.comments["names", key]
    assert found.layouts[key] == ("(parts out, in)", "(heads parts dim, in)")


def without(headers, *words: str) -> dict[str, Header]:
    return {n: h for n, h in headers.items() if not any(word in n for word in words)}


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        (("decoder", "tgt", "generator"), ["no layers of decoder", "encoder.layers.{i}"]),
        (("src_attn", "sublayer.2"), ["a layer of the decoder", "two attentions"]),
        (("lut", "proj"), ["no table of tokens (vocabulary, 12)"]),
        (("lut", "proj", ".pe"), ["no table (vocabulary, D) outside the layers"]),
        (("encoder.layers.1.self_attn.linears.0",), ["not in all layers"]),
        (
            ("encoder", "decoder"),
            ["no layers of encoder and of decoder", "nothing that is numbered"],
        ),
    ],
)
def test_what_is_no_encoder_decoder(gone, told) -> None:
    headers = headers_of(named_family("annotated-transformer").table)
    with pytest.raises(UserError, check=saying(*told)):
        proposed(without(headers, *gone))


def test_holes_are_told_and_the_rest_is_a_table() -> None:
    headers = headers_of(named_family("annotated-transformer").table)
    headers["bridge.weight"] = header((12, 12))
    headers["x{i}.weight"] = header((12,))
    headers["causal_mask"] = header((40, 40), bool)
    found = proposed(without(headers, "encoder.layers.0.sublayer.1", "encoder.layers.1.sublayer.1"))
    assert set(found.holes) == {
        "bridge.weight [12, 12] has no place",
        "x{i}.weight [12] has no place",
        "nothing was found for encoder.enc_layers.{i}.layerNorm2",
    }
    assert [one.theirs for one in found.table().unused] == ["causal_mask"]


def test_whatever_is_there_is_a_table_or_one_error() -> None:
    generator = random.Random(0)
    tables = [parse_table(text, name) for name, text in STYLES.items()]
    for _ in range(60):
        headers = headers_of(generator.choice(tables))
        for name in generator.sample(list(headers), 3):
            count, kept = generator.randrange(4), headers.pop(name)
            shape = tuple(generator.choice((1, 4, 12, 20, 36)) for _ in range(count))
            new = generator.choice((name, f"{name}.0.x", "a", name.replace("0", "two")))
            headers[new] = generator.choice((kept, header(shape)))
        try:
            proposed(headers).table()
        except UserError as error:
            assert "no table can be proposed" in str(error)


def test_assignments_are_the_best_ones() -> None:
    assert assign([[1.0, 5.0], [2.0, 5.5]]) == [1, 0]
    assert assign([[1.0], [3.0]]) == [None, 0]
    assert assign([]) == []


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("transformer.encoder.layers.0.w", "encoder"),
        ("decoder.encoderdecoderblock_0.x", "decoder"),
        ("enc_dec_attention.q", None),
        ("positional_encoding.pe", None),
        ("trgEmbed.weight", "decoder"),
    ],
)
def test_halves_by_words(name: str, half: str | None) -> None:
    assert half_of(name) == half


def test_words_of_names() -> None:
    assert words_of("fcQ.LayerNorm_0.w_qs") == ("fc", "q", "layer", "norm", "0", "w", "qs")


@pytest.fixture
def style(tmp_path, monkeypatch):
    """Writes a state dict of a table into model.safetensors of the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(table: NamingTable) -> str:
        arrays = {n: np.ones(h.shape, np.float32) for n, h in headers_of(table).items()}
        write_safetensors(tmp_path / "model.safetensors", Held(arrays))
        return "model.safetensors"

    return write


def test_the_command_prints_or_writes_a_table(style, tmp_path, capsys) -> None:
    file = style(parse_table(STYLES["flat"], "flat"))
    assert main(["names", file, "--num-heads", "3"]) == 0
    printed = capsys.readouterr().out
    assert parse_table(printed, "printed").config["num_heads"] == 3
    assert main(["names", file, "--num-heads", "3", "--output", "new/My Table.toml"]) == 0
    told = capsys.readouterr().out
    written = (tmp_path / "new/My Table.toml").read_text("utf-8")
    table = parse_table(written, "written")
    assert table.name == "my-table" and table.entries == parse_table(printed, "printed").entries
    for text in (told, printed, written):
        assert f"python -m convert {file} CONVERTED --to torch --names" in text
        assert 'python -m parity "module:their_file.py:make" CONVERTED' in text
    assert main([file, "made", "--to", "torch", "--names", "new/My Table.toml"]) == 0


def test_heads_that_do_not_fit_are_refused(style, tmp_path, capsys) -> None:
    """They divide the width that the tensors show, and nothing is written else."""
    file = style(parse_table(STYLES["flat"], "flat"))
    says(fail(capsys, "names", file, "--num-heads", "5", "--output", "mine.toml"), 5, 12, "divisor")
    assert not (tmp_path / "mine.toml").exists()


def test_the_command_never_writes_over_a_file(style, tmp_path, capsys) -> None:
    file, kept = style(parse_table(STYLES["flat"], "flat")), tmp_path / "mine.toml"
    kept.write_text("kept")
    said = fail(capsys, "names", file, "--output", kept, "--from", "marian")
    says(said, "mine.toml", "exists already")
    says(said, "marian", "--from", "leave")
    assert kept.read_text() == "kept"


def test_the_command_knows_what_comes_with_the_program(style, capsys) -> None:
    file = style(named_family("d2l").table)
    assert main(["names", file]) == 0
    printed = capsys.readouterr().out
    assert "has the names of d2l, a table that comes with the program" in printed
    assert parse_table(printed, "printed").entries == named_family("d2l").table.entries


def test_the_command_knows_what_needs_no_table(tmp_path, capsys) -> None:
    config = TransformerConfig(7, 7, 4, 6, 2, 1, 1, 5)
    file = tmp_path / "model.safetensors"
    write_safetensors(file, Held(initial_weights(config, 0)))
    assert main(["names", str(file)]) == 0
    assert "--from twinformer" in capsys.readouterr().out
    said = fail(capsys, "names", file, "--output", tmp_path / "x.toml")
    says(said, "twinformer", "needs no table")
    assert not (tmp_path / "x.toml").exists()


def test_two_tables_of_no_module_are_no_weight_and_its_bias():
    form = next(family.table for family in shipped_families() if family.name == "hyunwoongko")
    places = {f"pos_{half}": header((40, SIZES["hidden_dim"])) for half in ("enc", "dec")}
    found = proposed(headers_of(form) | places)
    assert not found.holes
    halves = {name: buffer.halves for name, buffer in found.table().buffers.items()}
    assert halves == {"pos_enc": ("encoder",), "pos_dec": ("decoder",)}
