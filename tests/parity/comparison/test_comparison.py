"""python -m parity A B: what it sees, what it says, what it refuses."""

import copy
import functools
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from messages import saying, says

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

from parity_cases import (  # noqa: E402
    PRE,
    TINY,
    assert_order_does_not_matter,
    failed,
    flax_side,
    random_weights,
    torch_side,
    write,
)

import torch_transformer  # noqa: E402
from parity.__main__ import main  # noqa: E402
from parity.certificates.certificate import read_certificate  # noqa: E402
from parity.comparison.comparison import compare, compare_sides  # noqa: E402
from parity.comparison.report import Report  # noqa: E402
from parity.comparison.settings import Settings  # noqa: E402
from parity.forward.ids import generated, read_ids  # noqa: E402
from parity.forward.substeps import LOGITS, is_step, substeps  # noqa: E402
from parity.sides.side import Side  # noqa: E402
from transformer_spec import (  # noqa: E402
    UserError,
    tied_weights,
    trained_names,
    weight_shapes,
)

pytestmark = pytest.mark.usefixtures("float64")
EXACT = Settings(precisions=(), longest=7)


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "a", TINY, random_weights(TINY))


@functools.cache
def report_of_twins(config):
    """The comparison of the two twins with the same weights."""
    return compare_sides(torch_side(config), flax_side(config), EXACT)


class TestSameFunction:
    @pytest.mark.sampled(1)
    @pytest.mark.parametrize("config", [TINY, PRE], ids=["post", "pre"])
    def test_twins_show_every_sub_step_and_gradient(self, config):
        report = report_of_twins(config)
        parts = [row.part for row in report.rows]
        gradients = [f"gradient of {name}" for name in trained_names(config)]
        kinds = ("embedding", "pos_embedding")
        names = [f"{half}.{kind}.weight" for kind in kinds for half in ("encoder", "decoder")]
        stored = {*weight_shapes(config), *tied_weights(config)}
        tables = [f"every row of {name}" for name in names if name in stored]
        assert parts == [*substeps(config), *tables, "loss", *gradients]
        assert report.same and report.verdict == "same function"
        assert all(0 < row.scale for row in report.rows)
        assert report.agreement.top1 == 1

    def test_error_budget_of_each_precision(self):
        settings = Settings(("float32", "bfloat16"), gradients=False, longest=7)
        report = compare_sides(torch_side(TINY), flax_side(TINY), settings)
        found = {name: report.budget[name].max_abs for name in settings.precisions}
        assert 1e-8 < found["float32"] < 1e-5 and 1e-3 < found["bfloat16"] < 1
        assert 0 < report.budget["float32"].a.max_kl < 1e-10
        steps = [r for r in report.rows if is_step(r.part) and r.part != "encoder.embed"]
        assert all(r.errors["float32"] < r.errors["bfloat16"] for r in steps)

    def test_number_formats_of_the_files_do_not_matter(self, tmp_path, capsys):
        weights = random_weights(TINY)
        half = {name: array.astype(np.float16) for name, array in weights.items()}
        wide = {name: array.astype(np.float64) for name, array in half.items()}
        one, other = (write(tmp_path / n, TINY, w) for n, w in (("half", half), ("wide", wide)))
        assert main([str(one), str(other), "--precision", "--no-gradients"]) == 0
        assert "PASS: same function" in capsys.readouterr().out


class Behind(Side):
    """A side that shows the logits of another alone, as somebody's own module does."""

    def __init__(self, side: Side):
        super().__init__(side.given, side.what, side.framework, side.config)
        self.side = side

    def trace(self, ids, precision):
        return {LOGITS: self.side.trace(ids, precision)[LOGITS]}


class TestTokensThatABiasHoldsApart:
    """A bias that keeps a token from being written makes no room for the logits of others."""

    CONFIG = replace(TINY, output_bias="trained")
    NEVER, OTHER = 1, 7

    def weights(self, size: float, moved: float = 0.0) -> dict[str, np.ndarray]:
        weights = random_weights(self.CONFIG)
        bias = weights["decoder.finalFc.bias"].copy()
        bias[self.NEVER] = size
        bias[self.OTHER] += moved
        return weights | {"decoder.finalFc.bias": bias}

    @pytest.mark.parametrize("size", [-1e9, float(np.finfo(np.float32).min)])
    def test_a_slip_is_seen(self, size):
        """One of a bias is in no other sub-step, and no gradient tells."""
        one = torch_side(self.CONFIG, self.weights(size))
        same, moved = (flax_side(self.CONFIG, self.weights(size, by)) for by in (0, 1e-9))
        settings = replace(EXACT, gradients=False, explain=False)
        assert compare_sides(one, same, settings).same
        report = compare_sides(one, moved, settings)
        assert [row.part for row in report.rows if not row.passed] == [LOGITS]
        assert report.first.at[-1] == self.OTHER

    def test_most_tokens_may_be_held_apart(self):
        """As where a vocabulary is padded to a round size, or cut to one domain."""
        sides = []
        for side, moved in ((torch_side, 0), (flax_side, 1e-9)):
            weights = self.weights(-1e9, moved)
            bias = weights["decoder.finalFc.bias"].copy()
            bias[8:] = -1e9
            sides.append(side(self.CONFIG, weights | {"decoder.finalFc.bias": bias}))
        report = compare_sides(*sides, replace(EXACT, gradients=False, explain=False))
        assert [row.part for row in report.rows if not row.passed] == [LOGITS]
        assert report.first.at[-1] == self.OTHER

    def test_a_slip_behind_logits_alone_is_explained(self):
        config = replace(self.CONFIG, activation="gelu")
        one = Behind(torch_side(config, self.weights(-1e9)))
        other = flax_side(replace(config, activation="gelu_tanh"), self.weights(-1e9))
        report = compare_sides(one, other, replace(EXACT, gradients=False))
        assert report.causes[0].in_words == "activation: A 'gelu', B 'gelu_tanh'"

    def test_the_token_itself_is_judged_by_its_size(self):
        weights = self.weights(-1e9)
        bias = weights["decoder.finalFc.bias"].copy()
        bias[self.NEVER] *= 1 + 1e-8
        other = flax_side(self.CONFIG, weights | {"decoder.finalFc.bias": bias})
        report = compare_sides(
            torch_side(self.CONFIG, weights), other, replace(EXACT, gradients=False)
        )
        assert [row.part for row in report.rows if not row.passed] == [LOGITS]
        assert report.first.at[-1] == self.NEVER

    def test_what_float32_rounds_is_that_of_the_others(self):
        settings = Settings(("float32",), gradients=False, longest=7)
        plain, held = (
            compare_sides(torch_side(self.CONFIG, w), flax_side(self.CONFIG, w), settings)
            for w in (self.weights(0.0), self.weights(-1e9))
        )
        found, expected = held.budget["float32"].a, plain.budget["float32"].a
        assert found.max_abs == pytest.approx(expected.max_abs, rel=0.5)
        assert found.spread == pytest.approx(expected.spread, rel=0.1)
        assert held.budget["float32"].honest == plain.budget["float32"].honest


class TestSettingsThatAreNotJudged:
    OTHER = replace(TINY, decoder_start_id=7, max_length=8, max_source_length=None, dropout=0.5)

    def test_the_last_line_says_them(self, tmp_path, folder, capsys):
        """The same function, and a model that translates to something else."""
        other = write(tmp_path / "b", replace(self.OTHER, eos_id=7), random_weights(TINY))
        flags, page = ["--precision", "float32", "--card"], tmp_path / "page.html"
        assert main([str(folder), str(other), *flags, "--html", str(page)]) == 0
        said = capsys.readouterr().out
        says(said.splitlines()[-1], "PASS: same function", "float32 rounding", "not judged",
             "decoder_start_id (A 0, B 7)", "max_length (A 9, B 8)", "dropout (A 0.1, B 0.5)",
             "eos_id (A 3, B 7)")  # fmt: skip
        for line in ("decoder_start_id: A 0, B 7", "eos_id: A 3, B 7"):
            assert said.count(line) == 1
            says(said, "different in their configs", "not judged", line)
        for name in ("PARITY.md", "certificate.json"):
            says((other / name).read_text(), "PASS" if name.endswith("md") else "verdict",
                 "not judged", "decoder_start_id (A 0, B 7)")  # fmt: skip
        assert "not judged, and different: " in page.read_text(encoding="utf-8")
        held = read_certificate(other).report
        assert held.not_judged["decoder_start_id"] == (0, 7) and "max_source_length" not in said
        assert held.different_settings == {"decoder_start_id": (0, 7)}

    def test_what_training_does_otherwise(self):
        trained = replace(TINY, output_bias="frozen", dropout_after_norm=True)
        report = compare_sides(torch_side(TINY), flax_side(trained), EXACT)
        says(report.verdict, "same function", "not judged", "output_bias", "dropout_after_norm")

    @pytest.mark.parametrize("field", ["encoder_positions", "decoder_positions"])
    @pytest.mark.parametrize("gradients", [True, False])
    def test_positions_that_one_side_never_trains(self, field, gradients):
        """The table's numbers are the same, and its gradient is in one of them alone."""
        frozen, weights = replace(PRE, **{field: "frozen"}), random_weights(PRE)
        sides = torch_side(PRE, weights), flax_side(frozen, weights)
        report = compare_sides(*sides, replace(EXACT, gradients=gradients))
        says(report.verdict, "same function", "not judged", f"{field} (A 'learned', B 'frozen')")
        wrong = torch_side(PRE, weights), flax_side(replace(frozen, norm_epsilon=0.1), weights)
        report = compare_sides(*wrong, replace(EXACT, explain=False))
        assert report.not_judged.keys() == {field}
        says(report.verdict, "not the same function", "norm_epsilon (A 1e-05")
        assert field not in report.verdict

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"pad_id": 5}, "pad_id (A 1, B 5)"),
            ({"positions_skip_padding": True}, "positions_skip_padding (A False, B True)"),
            ({"relative_max_distance": 64}, "relative_max_distance (A 128, B 64)"),
        ],
    )
    def test_what_the_given_ids_do_not_show(self, change, said, tmp_path, capsys):
        """One short text without padding is the same under other settings of padding."""
        kinds = {"encoder_positions": "relative"} if "relative" in said else {}
        config = replace(TINY, **kinds)
        folders = [
            write(tmp_path / name, one, random_weights(config))
            for name, one in (("a", config), ("b", replace(config, **change)))
        ]
        ids = tmp_path / "ids.jsonl"
        ids.write_text('{"source": [9, 12, 3], "target": [0, 11, 3]}\n')
        flags = ["--ids", str(ids), "--precision"]
        assert main([*map(str, folders), *flags]) == 0
        said_of_it = capsys.readouterr().out
        assert (
            said_of_it.splitlines()[-1] == f"PASS: same function; not judged, and different: {said}"
        )
        says(said_of_it, "different in their configs, not judged")

    def test_what_neither_model_uses_is_no_difference(self):
        other = replace(PRE, sinusoid_layout="concatenated", relative_max_distance=64)
        report = compare_sides(torch_side(PRE), flax_side(other), replace(EXACT, gradients=False))
        assert report.verdict == "same function" and report.different_settings == {}

    @pytest.mark.parametrize("gradients", [True, False])
    def test_ties_are_judged_by_gradients(self, gradients):
        tied = replace(TINY, tied_embeddings="target_output")
        weights = random_weights(tied)
        own = weights | {"decoder.finalFc.weight": weights["decoder.embedding.weight"]}
        settings = replace(EXACT, gradients=gradients)
        report = compare_sides(torch_side(TINY, own), flax_side(tied, weights), settings)
        held = {"tied_embeddings": ("none", "target_output")}
        assert report.same is not gradients
        assert (report.different_settings, report.not_judged)[not gradients] == held
        assert (report.different_settings, report.not_judged)[gradients] == {}

    def test_a_start_that_is_padding_is_judged(self):
        padded = replace(TINY, decoder_start_id=TINY.pad_id)
        sides = torch_side(padded), flax_side(replace(TINY, decoder_start_id=2))
        report = compare_sides(*sides, replace(EXACT, explain=False))
        assert not report.same and report.not_judged == {}
        says(report.verdict, "different in their configs", "decoder_start_id (A 1, B 2)")

    def test_a_report_from_before_has_none(self):
        content = compare_sides(torch_side(TINY), flax_side(self.OTHER), EXACT).to_dict()
        assert content.pop("not_judged")["dropout"] == [0.1, 0.5]
        assert Report.from_dict(content).not_judged == {}


class TestRowsThatNoTokenLooksUp:
    """The ids of a comparison are a few; the tables are compared whole."""

    CONFIG = replace(TINY, source_vocab_size=9000, target_vocab_size=9000)

    @pytest.mark.sampled(1)
    @pytest.mark.parametrize("half", ["encoder", "decoder"])
    def test_two_exchanged_rows(self, half):
        weights = random_weights(self.CONFIG)
        name, table = f"{half}.embedding.weight", weights[f"{half}.embedding.weight"].copy()
        table[[5100, 8200]] = table[[8200, 5100]]
        report = compare_sides(torch_side(self.CONFIG, weights),
                               flax_side(self.CONFIG, weights | {name: table}), EXACT)  # fmt: skip
        assert [row.part for row in report.rows if not row.passed] == [f"every row of {name}"]
        says(report.verdict, "not the same function", "2 of 9,000 rows", "5100, 8200")

    @pytest.mark.parametrize("table", ["encoder.embedding.weight", "decoder.pos_embedding.weight"])
    def test_a_huge_row_allows_others_nothing(self, table):
        """Rows that were never set hold any memory; rounding of others is no larger for it."""
        config = replace(PRE, source_vocab_size=9000, max_length=40)
        weights = random_weights(config)
        weights[table][30] = 1e14
        other = weights[table].copy()
        other[[32, 35]] = other[[35, 32]]
        sides = torch_side(config, weights), flax_side(config, weights | {table: other})
        settings = replace(EXACT, gradients=False, longest=7)
        report = compare_sides(*sides, settings)
        failed = [row for row in report.rows if not row.passed]
        assert [row.part for row in failed] == [f"every row of {table}"]
        assert failed[0].bound < 1e-10
        says(report.verdict, "not the same function", f"2 of {len(other):,} rows", "32, 35")
        other[[32, 35]], other[30] = other[[35, 32]], np.nextafter(other[30], 0)
        rounded = compare_sides(*sides, settings)
        assert rounded.same

    def test_what_is_padding_and_never_read_may_differ(self):
        weights = random_weights(self.CONFIG)
        table = weights["encoder.embedding.weight"].copy()
        table[self.CONFIG.pad_id] += 1
        other = flax_side(self.CONFIG, weights | {"encoder.embedding.weight": table})
        assert compare_sides(torch_side(self.CONFIG, weights), other, EXACT).same

    def test_scales_that_are_in_the_table(self):
        """What is looked up is the same number, whoever multiplies."""
        weights, scale = random_weights(self.CONFIG), 2.0
        doubled = {
            n: x * scale if n.endswith("embedding.weight") else x for n, x in weights.items()
        }
        configs = [replace(self.CONFIG, embedding_scale=x) for x in (scale, 1.0)]
        sides = torch_side(configs[0], weights), flax_side(configs[1], doubled)
        assert compare_sides(*sides, replace(EXACT, gradients=False)).same

    def test_without_weights_it_is_said_how_many_were(self):
        side = torch_side(self.CONFIG)
        shown = torch_side(self.CONFIG, given="b")
        shown.weights, shown.model = None, side.model
        settings = Settings(precisions=(), gradients=False, longest=7)
        report = compare_sides(side, shown, settings)
        assert report.same
        says(report.notes, "of 9,000 source tokens", "not compared", "--ids")


class TestRowsThatNoTokenReaches:
    """Of positions the last ones count too, where weights are seen and where they are not."""

    CONFIG = replace(PRE, position_offset=2)

    def report(self, row: int) -> Report:
        weights, name = random_weights(self.CONFIG), "decoder.pos_embedding.weight"
        table = weights[name].copy()
        table[row] += 1
        sides = torch_side(self.CONFIG, weights), flax_side(self.CONFIG, weights | {name: table})
        settings = replace(EXACT, gradients=False, explain=False)
        return compare_sides(*sides, settings)

    def test_a_row_beyond_the_longest_text(self):
        report = self.report(-1)
        part = "every row of decoder.pos_embedding.weight"
        assert [row.part for row in report.rows if not row.passed] == [part]
        says(report.verdict, "not the same function", "those of positions 8")

    def test_a_unit_that_no_token_switches_on(self):
        """Its weights are dead for the few tokens that were compared, and not for others."""
        weights, fc1, fc2 = (
            random_weights(TINY),
            *(f"encoder.enc_layers.0.ffn.{leaf}" for leaf in ("fc1.bias", "fc2.weight")),
        )
        bias, table = weights[fc1].copy(), weights[fc2].copy()
        bias[3] = -50
        table[:, 3] += 1
        one = torch_side(TINY, weights | {fc1: bias})
        other = flax_side(TINY, weights | {fc1: bias, fc2: table})
        report = compare_sides(one, other, EXACT)
        assert report.same
        says(report.verdict, "same function", f"1 of the {len(weights) - 2} tensors", fc2)

    def test_rows_before_the_offset_are_never_read(self):
        assert self.report(1).same

    def test_the_longest_generated_target_has_all_positions(self):
        for longest, most in ((None, self.CONFIG.max_length), (7, 7)):
            long = generated(self.CONFIG, longest)[1]
            assert long.source.shape == long.target.shape == (1, most)


class TestReport:
    @pytest.mark.parametrize(
        "other, settings",
        [
            ({}, Settings(("float32", "one-pass-bfloat16"), longest=5)),
            ({"norm_epsilon": 1e-3}, Settings((), gradients=False, longest=5)),
            pytest.param(
                *({"activation": "gelu"}, Settings((), longest=5)), marks=pytest.mark.thorough
            ),
        ],
        ids=["the same", "epsilon", "activation"],
    )
    def test_its_json_is_the_report(self, other, settings):
        report = compare_sides(torch_side(TINY), flax_side(replace(TINY, **other)), settings)
        text = json.dumps(report.to_dict(), allow_nan=False)
        assert Report.from_dict(json.loads(text)) == report
        assert report.same is not bool(other)

    def test_a_number_that_is_none(self):
        report = report_of_twins(TINY)
        broken = replace(report, rows=(replace(report.rows[0], float64=np.nan), *report.rows[1:]))
        text = json.dumps(broken.to_dict(), allow_nan=False)
        again = Report.from_dict(json.loads(text))
        assert np.isnan(again.rows[0].float64) and not again.same

    @pytest.mark.parametrize(
        "damage", [lambda c: c.pop("rows"), lambda c: c["rows"][0].update(float64="x")]
    )
    def test_a_damaged_one_is_refused(self, damage):
        content = copy.deepcopy(report_of_twins(TINY).to_dict())
        damage(content)
        with pytest.raises(UserError, match="damaged"):
            Report.from_dict(content)


class TestNotTheSame:
    def test_first_sub_step_numbers_and_cause(self, tmp_path, folder, capsys):
        other = write(tmp_path / "b", replace(TINY, norm_epsilon=1e-3), random_weights(TINY))
        assert main([str(folder), str(other), "--precision", "--json"]) == 1
        report = json.loads(capsys.readouterr().out)
        first = report["first"]
        assert first["part"] == "encoder.enc_layers.0.layerNorm1"
        assert first["difference"] == pytest.approx(abs(first["a"] - first["b"]))
        assert report["causes"][0]["in_words"] == "LayerNorm epsilon: A 1e-05, B 0.001"
        assert report["different_settings"] == {"norm_epsilon": [1e-5, 1e-3]}

    @pytest.mark.parametrize(
        ("field", "values", "said"),
        [
            ("relative_max_distance", (128, 64), "largest distance"),
            ("relative_max_distance", (300, 51), "largest distance"),
            ("embedding_scale", (3.0, 5.0), "embedding scale"),
        ],
    )
    def test_a_cause_has_the_values_that_both_configs_have(self, field, values, said):
        """Short texts do not tell 128 from 256; what A has is known, whichever is usual."""
        relative = {"encoder_positions": "relative", "decoder_positions": "relative"}
        config = replace(TINY, **relative, max_length=20, max_source_length=20)
        weights = random_weights(config)
        one, other = (replace(config, **{field: value}) for value in values)
        sides = torch_side(one, weights), flax_side(other, weights)
        report = compare_sides(*sides, replace(EXACT, longest=12, gradients=False))
        assert [cause.in_words for cause in report.causes] == [
            f"{said}: A {values[0]!r}, B {values[1]!r}"
        ]
        assert report.different_settings == {field: values}

    def test_heads_of_a_config_that_was_edited(self, tmp_path, folder, capsys):
        """The factor on scores stands in the file, and stays what it was."""
        edited = replace(TINY, num_heads=6, head_dim=2)
        assert edited.attention_scale == TINY.attention_scale
        other = write(tmp_path / "b", edited, random_weights(TINY))
        page = tmp_path / "page.html"
        assert main([str(folder), str(other), "--precision", "--html", str(page)]) == 1
        last = capsys.readouterr().out.splitlines()[-1]
        says(last, "FAIL: not the same function", "number of heads: A 3, B 6")
        says(page.read_text(encoding="utf-8"), "number of heads: A 3, B 6")

    @pytest.mark.parametrize("config", [TINY, PRE], ids=["post", "pre"])
    def test_heads_of_a_module_that_shows_its_logits_alone(self, tmp_path, config, capsys):
        """Its weights are right under any number of heads; the factor on scores goes with it."""
        weights = random_weights(config)
        right = write(tmp_path / "right", config, weights)
        wrong = replace(config, num_heads=2, head_dim=None, attention_scale=None)
        given = write(tmp_path / "wrong", wrong, weights)
        (tmp_path / "mine.py").write_text(
            "from torch import nn\nimport torch_transformer\n"
            "class Mine(nn.Module):\n"
            "    def __init__(self):\n        super().__init__()\n"
            f"        self.held = torch_transformer.load({str(right)!r})\n"
            "    def forward(self, source, target):\n        return self.held(source, target)\n"
            "make = Mine\n"
        )
        mine = f"module:{tmp_path / 'mine.py'}:make"
        for sides, said in (((mine, given), "A 3, B 2"), ((given, mine), "A 2, B 3")):
            assert main([*map(str, sides), "--precision"]) == 1
            last = capsys.readouterr().out.splitlines()[-1]
            says(last, "logits is the first to differ", f"number of heads: {said}")

    def test_settings_that_differ_where_nothing_explains_it(self, tmp_path, folder, capsys):
        both = replace(TINY, activation="gelu", norm_epsilon=1e-3)
        other = write(tmp_path / "b", both, random_weights(TINY))
        page, fields = tmp_path / "page.html", ("activation (A 'relu', B 'gelu')", "norm_epsilon")
        flags = ["--precision", "--no-gradients"]
        assert main([str(folder), str(other), *flags, "--html", str(page)]) == 1
        last = capsys.readouterr().out.splitlines()[-1]
        says(last, "no single known slip", "different in their configs", *fields)
        says(page.read_text(encoding="utf-8"), "no single known slip", "norm_epsilon (A 1e-05")
        assert main([str(folder), str(other), *flags, "--no-explain"]) == 1
        last = capsys.readouterr().out.splitlines()[-1]
        says(last, "different in their configs", *fields)
        assert "no single known slip" not in last

    def test_in_words(self, tmp_path, folder, capsys):
        weights = random_weights(TINY)
        name = "decoder.dec_layers.1.multiheadattention2.fcOut.weight"
        other = write(tmp_path / "b", TINY, weights | {name: weights[name].T.copy()})
        assert main([str(folder), str(other), "--precision", "--no-gradients"]) == 1
        text = capsys.readouterr().out
        assert "decoder layer 2, multiheadattention2" in text
        assert "fcOut not transposed: in decoder.dec_layers.1.multiheadattention2" in text
        assert "FAIL: not the same function" in text

    def test_a_tie_that_only_gradients_show(self, tmp_path, capsys):
        tied = replace(TINY, tied_embeddings="target_output")
        weights = random_weights(tied)
        one = write(tmp_path / "tied", tied, weights)
        table = {"decoder.finalFc.weight": weights["decoder.embedding.weight"]}
        other = write(tmp_path / "untied", TINY, weights | table)
        assert main([str(one), str(other), "--precision"]) == 1
        text = capsys.readouterr().out
        assert "tied embeddings: A 'target_output', B 'none'" in text
        says(text, "gradient of decoder.embedding.weight", "first")

    def test_a_path_of_gradients_that_is_lost(self, monkeypatch):
        """What one side gives no gradient of has zeros there, and the other has not."""
        encode = torch_transformer.Transformer.encoder_states
        monkeypatch.setattr(
            torch_transformer.Transformer,
            "encoder_states",
            lambda *a, **k: encode(*a, **k).detach(),
        )
        settings = replace(EXACT, explain=False)
        report = compare_sides(torch_side(TINY), flax_side(TINY), settings)
        far = [row.part for row in report.rows if row.float64 > row.bound]
        lost = [f"gradient of {n}" for n in trained_names(TINY) if n.startswith("encoder.")]
        assert not report.same and far
        assert set(far) == {part for part in lost if "fcK.bias" not in part}

    def test_what_nothing_explains_is_said(self, tmp_path, folder, capsys):
        weights = random_weights(TINY)
        name = "encoder.enc_layers.0.ffn.fc1.weight"
        other = write(tmp_path / "b", TINY, weights | {name: weights[name] + 0.01})
        assert main([str(folder), str(other), "--precision", "--no-gradients"]) == 1
        text = capsys.readouterr().out
        says(text, f"1 of {len(weights)} tensors", name, "no single known slip")
        assert text.splitlines()[-1].startswith("FAIL: not the same function")

    def test_two_trainings_are_other_weights(self, tmp_path, folder, monkeypatch, capsys):
        monkeypatch.setattr("parity.comparison.comparison.explain", lambda *_: pytest.fail("tried"))
        other = write(tmp_path / "b", TINY, random_weights(TINY, 1))
        assert main([str(folder), str(other), "--precision", "--no-gradients"]) == 1
        last = capsys.readouterr().out.splitlines()[-1]
        says(last, f"all {len(random_weights(TINY))} tensors", "other weights")

    def test_a_fine_tuned_model_is_other_weights(self):
        weights = random_weights(TINY)
        near = {name: array + 1e-4 for name, array in weights.items()}
        report = compare_sides(torch_side(TINY, weights), flax_side(TINY, near), EXACT)
        assert report.causes == () and "these are other weights" in report.verdict


class TestFunctions:
    def write(self, tmp_path, body: str) -> str:
        (tmp_path / "mine.py").write_text(body)
        return f"module:{tmp_path / 'mine.py'}:make"

    def test_a_module_of_the_user_s(self, tmp_path, folder, capsys):
        made = self.write(tmp_path, (
            "import torch, torch_transformer\n"
            f"def make():\n    model = torch_transformer.load({str(folder)!r})\n"
            "    return model, model.config\n"
        ))  # fmt: skip
        assert main([made, str(folder), "--precision", "float32", "one-pass-bfloat16"]) == 0
        text = capsys.readouterr().out
        says(text, "sub-steps", "not compared", "A (a PyTorch module)", "only the logits")
        says(text, "loss and gradients", "not compared", "A (a PyTorch module)")
        left_out = [line for line in text.splitlines() if "one-pass-bfloat16 is left out" in line]
        assert [line.partition(" for ")[2][:2] for line in left_out] == ["A:", "B:"]
        assert "float32 is left out" not in text

    def test_what_lies_beside_it_and_what_it_defines(self, tmp_path, folder, capsys):
        (tmp_path / "beside_mine.py").write_text("import torch_transformer\n")
        made = self.write(tmp_path, (
            "from __future__ import annotations\nfrom dataclasses import dataclass\n"
            "@dataclass\nclass Held:\n    model: object\n"
            "def make():\n    from beside_mine import torch_transformer\n"
            f"    held = Held(torch_transformer.load({str(folder)!r}))\n"
            "    return held.model, held.model.config\n"
        ))  # fmt: skip
        before = list(sys.path)
        assert main([made, str(folder), "--precision"]) == 0
        assert sys.path == before and "mine" not in sys.modules

    def test_a_slip_where_only_logits_are_seen(self, tmp_path, folder, capsys):
        made = self.write(tmp_path, (
            "import torch, torch_transformer\n"
            f"def make():\n    model = torch_transformer.load({str(folder)!r})\n"
            "    inside = model.encoder.enc_layers[0].multiheadattention\n"
            "    inside.fcQ, inside.fcK = inside.fcK, inside.fcQ\n"
            "    return model, model.config\n"
        ))  # fmt: skip
        assert main([made, str(folder), "--precision", "--length", "5"]) == 1
        text = capsys.readouterr().out
        assert "fcQ and fcK exchanged: in encoder.enc_layers.0.multiheadattention" in text

    def test_a_narrow_format_takes_nothing_from_the_next(self, tmp_path, folder):
        made = self.write(tmp_path, (
            "import torch_transformer\n"
            f"def make():\n    model = torch_transformer.load({str(folder)!r})\n"
            "    return model, model.config\n"
        ))  # fmt: skip
        assert_order_does_not_matter(made, str(folder))

    def test_a_function_in_jax(self, tmp_path, folder, capsys):
        made = self.write(tmp_path, (
            "import flax_transformer, jax\n"
            f"def make():\n    model = flax_transformer.load({str(folder)!r})\n"
            "    return jax.jit(lambda s, t: model(s, t)), model.config.to_dict()\n"
        ))  # fmt: skip
        assert main([made, str(folder), "--precision"]) == 0
        assert "PASS: same function" in capsys.readouterr().out

    def test_a_wrong_shape_is_named(self, tmp_path, folder, capsys):
        made = self.write(tmp_path, (
            "import numpy as np\n"
            f"def make():\n    return (lambda s, t: np.zeros((2, 3))), {TINY.to_dict()}\n"
        ))  # fmt: skip
        error = failed(capsys, made, folder)
        says(error, "returned [2, 3]", "source [6, 9]")
        assert "logits should be [6, 6, 19]" in error

    @pytest.mark.parametrize(
        ("config", "said"),
        [
            ("3", "and returned a int as config"),
            ("{1: 2}", "and returned a dict as config"),
            ("{'hidden_dim': 4}", "mine.py:make: invalid TransformerConfig: 7 faults"),
        ],
    )
    def test_what_is_no_config(self, tmp_path, folder, capsys, config, said):
        made = self.write(tmp_path, f"def make():\n    return print, {config}\n")
        assert said in failed(capsys, made, folder)

    @pytest.mark.parametrize(
        ("kind", "said"),
        [("log_softmax", "the exponentials of every row"), ("softmax", "every row adds up to 1")],
    )
    def test_probabilities_are_no_logits(self, tmp_path, folder, capsys, kind, said):
        made = self.write(tmp_path, (
            "import jax, torch_transformer, torch\n"
            "class Mine(torch.nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            f"        self.held = torch_transformer.load({str(folder)!r})\n"
            "    def forward(self, source, target):\n"
            f"        return self.held(source, target).{kind}(-1)\n"
            f"def make():\n    return Mine(), {TINY.to_dict()}\n"
        ))  # fmt: skip
        for sides in ((made, folder), (folder, made)):
            error = failed(capsys, *sides, "--precision")
            says(error, made, "returned", "probabilities", said, f"gives to {kind}")
        assert main([made, made, "--precision"]) == 0  # the same of both can be compared

    def test_what_is_no_model(self, tmp_path, folder, capsys):
        made = self.write(tmp_path, "def make():\n    return 3\n")
        assert "it should return a model, (model, config) or" in failed(capsys, made, folder)
        assert "has no function 'none'" in failed(capsys, made.replace("make", "none"), folder)


class TestInputs:
    def test_length_bounds_every_text(self, tmp_path, folder, capsys):
        flags = ["--json", "--precision", "--no-gradients"]
        assert main([str(folder), str(folder), *flags, "--length", "5"]) == 0
        found = json.loads(capsys.readouterr().out)["batches"]
        assert found == [[[6, 5], [6, 2]], [[1, 5], [1, 5]]]

    @pytest.mark.parametrize("target", ["[0]", "[0, 1, 1]"])
    def test_targets_without_a_token_that_counts(self, tmp_path, folder, capsys, target):
        path = tmp_path / "ids.jsonl"
        path.write_text(f'{{"source": [3, 4], "target": {target}}}\n' * 33)
        flags = ["--ids", str(path), "--precision"]
        assert main([str(folder), str(folder), *flags, "--b-framework", "jax"]) == 0
        says(capsys.readouterr().out, "not compared", "no target")
        with path.open("a") as file:
            file.write('{"source": [3, 4], "target": [0, 5]}\n')
        assert main([str(folder), str(folder), *flags, "--json", "--length", "3"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["notes"] == [] and "loss" in [row["part"] for row in report["rows"]]


class TestRefusals:
    def test_both_sides_at_once(self, tmp_path, capsys):
        error = failed(capsys, tmp_path / "one", "module:nothing.py:make")
        assert f"A: {tmp_path / 'one'} does not exist" in error
        assert "B: nothing.py does not exist" in error

    def test_every_differing_size_before_any_compute(self, tmp_path, folder, capsys):
        config = replace(TINY, inner_dim=8, target_vocab_size=20)
        other = write(tmp_path / "b", config, random_weights(config))
        error = failed(capsys, folder, other)
        assert "target_vocab_size: A 19, B 20" in error and "inner_dim: A 7, B 8" in error

    def test_options_before_anything_is_read(self, tmp_path, capsys):
        (tmp_path / "net.pt").write_text("")
        given = ["nothing", tmp_path / "net.pt", "--seed", -1, "--length", 0, "--certificate"]
        error = failed(capsys, *given, "--plot", tmp_path / "none" / "x.svg")
        assert "5 faults" in error and "seed is -1" in error
        assert "--length is 0" in error and "x.svg must end in .png" in error
        assert f"there is no folder {tmp_path / 'none'}" in error
        says(error, "net.pt", "no folder", "certificate")

    def test_a_checkpoint_for_the_card_that_is_not_there(self, folder, capsys):
        assert "none does not exist" in failed(capsys, folder, "none", "--card")

    def test_weights_that_are_no_numbers(self, tmp_path, folder, capsys):
        weights = random_weights(TINY)
        weights["encoder.enc_layers.0.ffn.fc1.bias"][3] = np.nan
        weights["decoder.finalFc.weight"][2, :4] = np.inf
        other = write(tmp_path / "b", TINY, weights)
        error = failed(capsys, folder, other)
        says(error, "B: 1 numbers of encoder.enc_layers.0.ffn.fc1.bias", "NaN or infinite")
        assert "B: 4 numbers of decoder.finalFc.weight" in error

    def test_ids_that_do_not_fit(self, tmp_path, folder, capsys):
        lines = [{"source": [3, 99], "target": [0]}, {"source": [3]}, {"source": [], "target": [1]}]
        path = tmp_path / "ids.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)) + "\nnonsense\n")
        error = failed(capsys, folder, folder, "--ids", path)
        says(error, "4 faults")
        says(error, "line 1", "source", 99, 17)
        says(error, "line 2", "no 'target'", '{"source": [5, 9, 0], "target": [7, 4, 0]}')
        says(error, "line 3", "source", "no list of ids")
        says(error, "line 4", "no JSON", '{"source": [5, 9, 0], "target": [7, 4, 0]}')
        assert "Expecting" not in error

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("5 9 0", ("no JSON",)),
            ("[5, 9]", ("no JSON object", "list")),
            ("{}", ("no 'source'", "no 'target'")),
            ('{"source": {}, "target": [1]}', ("source is no list of ids",)),
            ('{"source": [99], "target": [0]}', ("source has 99",)),
        ],
    )
    def test_of_many_lines_the_first_and_a_count(self, tmp_path, folder, capsys, line, said):
        path = tmp_path / "ids.jsonl"
        path.write_text(f"{line}\n" * 1500)
        error = failed(capsys, folder, folder, "--ids", path)
        says(error, "1500 faults")
        says(error, "line 3", *said)
        says(error, "and 1,497 more lines")
        assert len(error.splitlines()) < 8

    def test_what_cannot_be_read(self, tmp_path, folder, capsys):
        (tmp_path / "latin.jsonl").write_bytes(b"\xe4\n")
        for name, said in (("none", "none"), ("latin.jsonl", "UTF-8")):
            error = failed(capsys, folder, folder, "--ids", tmp_path / name)
            says(error, "ids", said)
            assert "Errno" not in error and "codec" not in error

    def test_one_of_texts_and_ids(self, folder):
        given = {"text": "none.tsv", "ids": "none", "audio": "none.wav"}
        for names in (("text", "ids"), ("text", "audio"), ("text", "ids", "audio")):
            chosen = {name: given[name] for name in names}
            with pytest.raises(UserError, check=saying(" and ".join(names), "give one")):
                compare(str(folder), str(folder), Settings(**chosen))

    def test_targets_that_are_padding_alone(self, tmp_path, folder, capsys):
        lines = ['{"source": [1], "target": [0, 2]}'] + ['{"source": [3], "target": [1, 1]}'] * 2
        path = tmp_path / "ids.jsonl"
        path.write_text("\n".join(lines))
        error = failed(capsys, folder, folder, "--ids", path)
        says(error, "2 faults")
        says(error, "line 2: target is padding alone", "give it tokens or leave it out")
        begun = replace(TINY, decoder_start_id=TINY.pad_id)
        assert [ids.target.shape for ids in read_ids(path, begun)] == [(3, 2)]

    def test_ids_that_do(self, tmp_path, folder, capsys):
        path = tmp_path / "ids.jsonl"
        path.write_text('{"source": [3, 4, 5], "target": [0, 2]}\n{"source": [6], "target": [0]}\n')
        assert main([str(folder), str(folder), "--ids", str(path), "--json", "--precision"]) == 0
        assert json.loads(capsys.readouterr().out)["batches"] == [[[2, 3], [2, 2]]]
