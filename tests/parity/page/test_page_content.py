"""report.save_html: all of a report is in its page, and text of users is text there."""

import errno
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from messages import saying, says

pytest.importorskip("torch")
pytest.importorskip("jax")

from pages_read import FAILING, cells_of, made_up, not_finite, read, rows_of  # noqa: E402
from parity_cases import (  # noqa: E402
    PRE,
    TINY,
    WHISPER,
    flax_side,
    random_weights,
    report_with,
    torch_side,
    write,
)
from recording_cases import sound, write_wav  # noqa: E402

from parity.comparison.comparison import compare, compare_sides  # noqa: E402
from parity.comparison.memory import needs  # noqa: E402
from parity.comparison.report import Cause, Row  # noqa: E402
from parity.comparison.settings import Settings  # noqa: E402
from parity.comparison.text import shown  # noqa: E402
from parity.forward.ids import generated  # noqa: E402
from parity.forward.substeps import substeps  # noqa: E402
from parity.page.page import page  # noqa: E402
from parity.page.shapes import shapes  # noqa: E402
from transformer_spec import UserError  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64")
EXACT = Settings(precisions=("float32",), longest=7)
GELU = "activation (A 'relu', B 'gelu')"


def of_the_same():
    return compare_sides(torch_side(TINY), flax_side(TINY), EXACT)


def of_another_epsilon():
    other = replace(TINY, norm_epsilon=1e-3)
    return compare_sides(torch_side(TINY), flax_side(other), EXACT)


class TestRows:
    @pytest.mark.parametrize("make", [of_the_same, of_another_epsilon, made_up, not_finite])
    def test_every_row_of_the_report_is_one_of_the_page(self, make):
        report = make()
        rows = rows_of(read(page(report)))
        assert [row.all("span")[0].text for row in rows] == [shown(r.part) for r in report.rows]
        for row, found in zip(report.rows, map(cells_of, rows), strict=True):
            assert found["verdict"] == ("PASS" if row.passed else "FAIL")
            told = [(row.float64, found["float64"]), (row.bound, found["bound"])]
            told += [(error, found[name]) for name, error in row.errors.items()]
            for value, text in told:
                assert float(text) == pytest.approx(value, rel=0.05, nan_ok=True)
            absent = found.keys() - {"#", "shape", "float64", "bound", "verdict", *row.errors}
            assert all(found[name] == "" for name in absent)

    def test_the_first_to_differ_is_marked_once_and_linked(self):
        found = read(page(made_up()))
        marked = [row for row in rows_of(found) if row.all("span", class_="tag")]
        assert [row.all("span")[0].text for row in marked] == [shown(FAILING)]
        assert [len(row.all("span", id="first")) for row in marked] == [1]
        assert [row.attributes["class"] for row in marked] == ["fail first"]
        (section,) = found.all("section", id="difference")
        (link,) = section.all("a", href="#first")
        assert link.text == shown(FAILING) and FAILING in section.text

    def test_the_numbers_on_both_sides_and_the_cause(self):
        (section,) = read(page(made_up())).all("section", id="difference")
        numbers = {pair.all("dt")[0].text: pair.all("dd")[0].text for pair in section.all("div")}
        assert (float(numbers["A"]), float(numbers["B"])) == (0.1, -0.25)
        assert numbers["at"] == "[1, 2, 3] of batch 1"
        assert "What explains all of it" in [heading.text for heading in section.all("h3")]
        assert [cause.text for cause in section.all("li")] == ["activation: A 'relu', B 'gelu'"]

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"causes": (), "weights": "3 of 9 tensors differ"}, ("3 of 9 tensors differ", GELU)),
            ({"causes": ()}, ("no single known slip explains it", GELU)),
            ({"causes": None}, ("no cause was looked for",)),
        ],
    )
    def test_what_nothing_explains(self, fields, said):
        (section,) = read(page(made_up(**fields))).all("section", id="difference")
        says(section.all("p")[-1].text, *said)

    def test_the_same_function_has_nothing_to_explain(self):
        found = read(page(of_the_same()))
        assert not found.all("section", id="difference") and not found.all("a", href="#first")
        assert [h.text for h in found.all("h1")] == ["PASS Same function"]
        assert "fail" not in {row.attributes["class"] for row in rows_of(found)}

    def test_curves_are_of_sub_steps_and_of_gradients(self):
        report = made_up()
        figures = read(page(report)).all("figure")
        steps, gradients = ([g for g in f.all("g") if "data-row" in g.attributes] for f in figures)
        assert len(steps) == len(substeps(TINY)) and len(gradients) == 1
        assert [len(point.all("circle")) for point in (steps[0], gradients[0])] == [3, 1]
        crosses = [len(figure.all("path", class_="cross")) for figure in figures]
        failed = sum(not row.passed for row in report.rows if row.errors)
        assert crosses == [failed + 1, 2]  # the legend has one
        assert steps[0].all("title")[0].text == (
            "encoder.embed: float64 3.0e-16, float32 1.0e-07, bfloat16 1.0e-02"
        )

    def test_what_is_no_finite_number_stands_at_the_top(self):
        found = read(page(not_finite()))
        assert [cells_of(row)["float64"] for row in rows_of(found)][:3] == ["0", "inf", "NaN"]
        (figure,) = found.all("figure")
        heights = [g.all("circle")[0].attributes["cy"] for g in figure.all("g")]
        assert heights[:3] == ["100.000%", "0.000%", "0.000%"]
        assert "NaN, inf" in [label.text for label in figure.all("span")]
        (section,) = found.all("section", id="difference")
        assert "have other shapes" in section.text

    @pytest.mark.parametrize("layers", [1, 6, 24])
    def test_labels_of_layers_do_not_touch(self, layers):
        """The first layer of a half and the logits have theirs on the narrowest screen."""
        config = replace(PRE, num_encoder_layers=layers, num_decoder_layers=layers)
        rows = [Row(step, 1e-16, 1e-11) for step in substeps(config)]
        (figure,) = read(page(report_with(rows, config=config.to_dict()))).all("figure")
        every = figure.all("span", class_="label")
        few = [label for label in every if "rare" not in (label.attributes["class"] or "")]
        for labels, letter in ((few, 0.022), (every, 0.007)):
            edges = sorted(
                (float((label.attributes["style"] or "")[5:-1]) / 100, len(label.text) * letter / 2)
                for label in labels
            )
            assert all(x + w < y - v for (x, w), (y, v) in itertools.pairwise(edges))
            assert [label.text for label in labels].count("1") == 2
            assert "logits" in [label.text for label in labels]

    def test_gradients_alone(self):
        report = report_with([Row("loss", 1.0, 1e-10)], config=TINY.to_dict())
        found = read(page(report))
        assert not found.all("figure") and len(rows_of(found)) == 1
        assert [link.text for link in found.all("a", href="#first")] == ["loss"]


class TestComparisons:
    def test_of_features(self, tmp_path):
        """A front end that is wrong is the first to differ, and no sub-step is blamed."""
        config = replace(WHISPER, max_source_length=1500, num_decoder_layers=1)
        folder = write(tmp_path / "model", config, random_weights(config))
        write_wav(tmp_path / "two.wav", sound(2.0))
        np.save(tmp_path / "zeros.npy", np.zeros((3000, 5)))
        audio, features = str(tmp_path / "two.wav"), str(tmp_path / "zeros.npy")
        settings = Settings((), gradients=False, audio=audio, features=features)
        report = compare(str(folder), str(folder), settings)
        found = read(page(report))
        assert cells_of(rows_of(found)[0])["shape"] == "3,000 × 5"
        assert [link.text for link in found.all("a", href="#first")] == [
            "log-mel features of the file"
        ]
        assert f"--audio {audio} --features {features}" in found.all("code", id="command")[0].text

    def test_of_features_and_of_a_model_that_differs(self):
        """The front end is the first to differ; the numbers are of the first sub-step."""
        report = made_up()
        heard = Row("log-mel features of the file", 1.0, 5e-5, 1.0)
        found = read(page(replace(report, rows=(heard, *report.rows))))
        (section,) = found.all("section", id="difference")
        first, second = section.all("a")
        assert (first.attributes["href"], first.text) == ("#first", heard.part)
        row = found.all("tr", id=(second.attributes["href"] or "").removeprefix("#"))[0]
        assert row.all("span")[0].text == second.text == shown(FAILING)
        assert "-0.25" in section.text

    def test_module_by_module(self, monkeypatch):
        monkeypatch.setattr("parity.comparison.memory.resident", lambda: 0)
        sides = torch_side(TINY), flax_side(replace(TINY, norm_epsilon=1e-3))
        need = needs(*sides, generated(TINY, 7))
        limit = (need.streamed + need.whole) // 2
        report = compare_sides(*sides, replace(EXACT, max_ram=limit))
        assert all(side.streamed for side in sides)
        found = read(page(report))
        notes = found.all("section", class_="notes")[0].all("li")
        assert [note.text for note in notes] == list(report.notes)
        assert "no cause was looked for" in found.all("section", id="difference")[0].text
        assert f"--max-ram {limit} --no-gradients" in found.all("code", id="command")[0].text
        assert len(found.all("figure")) == 1

    @pytest.mark.parametrize("config", [TINY, PRE, WHISPER], ids=["post", "pre", "features"])
    def test_shapes_are_those_of_the_arrays(self, config):
        (first, *_) = batches = generated(config, 7)
        trace = torch_side(config).trace(first, "float64")
        report = report_with(
            [Row(step, 0.0, 1e-11) for step in substeps(config)], config=config.to_dict(),
            batches=tuple(tuple(part.shape for part in ids) for ids in batches),
        )  # fmt: skip
        assert shapes(report) == {step: trace[step].shape for step in substeps(config)}

    @pytest.mark.parametrize("config", [TINY, PRE, WHISPER], ids=["post", "pre", "features"])
    def test_shapes_of_gradients_are_those_of_the_arrays(self, config):
        _, gradients = torch_side(config).gradients(generated(config, 7)[0])
        rows = [Row(f"gradient of {name}", 0.0, 1e-10) for name in gradients]
        found = shapes(report_with(rows, config=config.to_dict()))
        assert list(found.values()) == [array.shape for array in gradients.values()]

    def test_shapes_of_gradients_and_tables(self):
        tied = replace(TINY, source_vocab_size=19, tied_embeddings="all")
        expected = {
            "every row of decoder.embedding.weight": (19, 12),
            "loss": (),
            "gradient of encoder.embedding.weight but row 1": (18, 12),
        }
        rows = [Row(part, 0.0, 1e-10) for part in expected]
        assert shapes(report_with(rows, config=tied.to_dict())) == expected


class TestText:
    HOSTILE = "<script>alert(1)</script>\"'&amp;<img src=x onerror=alert(1)>"

    def test_of_users_is_text(self):
        given = self.HOSTILE
        report = made_up(
            a=replace(made_up().a, given=given, what=given),
            b=replace(made_up().b, given=f"b{given}"),
            causes=(Cause("slip", given),), notes=(given,), different_settings={given: (given, 1)},
            settings=Settings(text=given),
        )  # fmt: skip
        found = read(page(report))
        assert len(found.all("script")) == 1 and not found.all("img")
        sides = [side.all("p", class_="given")[0].text for side in found.all("section")
                 if side.attributes.get("class") == "side"]  # fmt: skip
        assert sides == [given, f"b{given}"]
        assert found.all("ul", class_="causes")[0].text == given
        assert given in found.all("title")[0].text

    def test_a_folder_whose_name_is_a_script(self, tmp_path):
        folder = write(tmp_path / "<script>", TINY, random_weights(TINY))
        report = compare(str(folder), str(folder), replace(EXACT, gradients=False))
        made = read(report.save_html(tmp_path / "it.html").read_text(encoding="utf-8"))
        assert len(made.all("script")) == 1 and str(folder) in made.all("header")[0].text

    def test_what_turns_text_around_is_shown_escaped(self):
        report = made_up(a=replace(made_up().a, given="a\u202egnp.\x1b[31m\udcff"))
        assert "a\\u202egnp.\\x1b[31m\\udcff" in read(page(report)).all("header")[0].text

    def test_nothing_comes_from_elsewhere(self):
        html = page(made_up())
        found = read(html)
        policy = [meta.attributes.get("content") for meta in found.all("meta")]
        assert any("default-src 'none'" in (content or "") for content in policy)
        places = [node.attributes[name] for node in found.walk()
                  for name in ("src", "href") if name in node.attributes]  # fmt: skip
        assert places and all(str(place).startswith(("#", "data:,")) for place in places)
        assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", html)

    def test_ids_are_of_one_element_each(self):
        ids = [node.attributes["id"] for node in read(page(made_up())).walk()
               if "id" in node.attributes]  # fmt: skip
        assert len(ids) == len(set(ids)) > 10


class TestFile:
    def test_is_whole_or_not_there(self, tmp_path, monkeypatch):
        path = tmp_path / "it.html"
        path.write_text("before")
        write_text = Path.write_text

        def full(self, content, **how):
            write_text(self, content[:100], **how)
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "write_text", full)
        with pytest.raises(UserError, check=saying("cannot write", path, "No space left")):
            made_up().save_html(path)
        assert list(tmp_path.iterdir()) == [path] and path.read_text() == "before"

    def test_takes_the_place_of_another(self, tmp_path):
        path = tmp_path / "it.html"
        path.write_text("before")
        assert made_up().save_html(str(path)) == path
        assert path.read_text(encoding="utf-8").startswith("<!doctype html>")

    def test_a_folder_that_is_not_there(self, tmp_path):
        folder = tmp_path / "none"
        with pytest.raises(UserError, check=saying("cannot write", f"no folder {folder}")) as error:
            made_up().save_html(folder / "it.html")
        assert "moved or removed" not in str(error.value)
        made_up().save_html(tmp_path / "it.html")

    def test_numbers_are_not_lost(self):
        """What is NaN in a report has an order in the table."""
        keys = [
            row.all("td")[2].attributes["data-sort"] for row in rows_of(read(page(not_finite())))
        ]
        assert keys[1:3] == ["inf", "inf"] and math.isclose(float(keys[3] or ""), 1e-15)


@pytest.mark.parametrize(("path", "said"), [(3, "path is of type int"), ("a\0.html", "NUL")])
def test_what_is_no_path_is_one_error(path, said):
    with pytest.raises(UserError, match=said):
        made_up().save_html(path)
