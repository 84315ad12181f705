"""Attention as pictures: what the rows and columns are, what is drawn, in which script."""

import itertools
import warnings

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from messages import faults_say, says

from training_recipe import fonts
from training_recipe.searching.attention import AttentionWeights
from training_recipe.searching.search import Hypothesis, Search, hypothesis
from training_recipe.text.vocabulary import build_vocabulary
from transformer_spec import TransformerConfig, UserError
from twinformer.translating import attention_plot
from twinformer.translating.attention import Map, Pictures, attention_map, shown
from twinformer.translating.attention_plot import draw_map

CONFIG = TransformerConfig(
    source_vocab_size=9, target_vocab_size=9, hidden_dim=4, inner_dim=4, num_heads=2,
    num_encoder_layers=1, num_decoder_layers=3, max_length=10,
)  # fmt: skip
LETTERS = build_vocabulary("characters", ["abc d"])
WORDS = build_vocabulary("whitespace", ["AA BB CC DD EE"])
BOTH = LETTERS, WORDS
HANGUL = "한국어"
KINDS = AttentionWeights._fields


class Attending:
    """A model's attention that is known: key K of query Q has the weight (Q + 1) / (K + 1)."""

    def __init__(self):
        self.seen = []

    def __call__(self, source, target):
        self.seen.append((source, target))
        S, T = source.shape[1], target.shape[1]

        def weights(layers, rows, columns):
            share = np.arange(1, rows + 1)[:, None] / np.arange(1, columns + 1)
            return np.broadcast_to(share, (layers, 1, 2, rows, columns))

        return AttentionWeights(weights(3, T, S), weights(1, S, S), weights(3, T, T))


def output(ids: list[int], ended: bool = True) -> Hypothesis:
    return Hypothesis(ids, -1.0, -1.0, ended)


class TestMaps:
    @pytest.mark.parametrize(
        ("kind", "layers", "rows", "columns"),
        [
            ("cross", 3, ["CC", "AA", "</s>"], ["a", "b", "\u2423", "</s>"]),
            ("encoder", 1, ["a", "b", "\u2423", "</s>"], ["a", "b", "\u2423", "</s>"]),
            ("decoder", 3, ["CC", "AA", "</s>"], ["<s>", "CC", "AA"]),
        ],
    )
    def test_rows_and_columns(self, kind, layers, rows, columns):
        attend, ids = Attending(), (LETTERS.encode("ab "), WORDS.encode("CC AA"))
        found = attention_map(attend, kind, ids[0], output(ids[1]), BOTH, CONFIG, Search())
        assert (found.rows, found.columns) == (rows, columns)
        assert found.weights.shape == (layers, 2, len(rows), len(columns))
        assert found.weights[-1, 1, 2, 1] == 3 / 2
        (source, target), pad = attend.seen[0], [0] * 5
        assert source.tolist() == [[*ids[0], 3, 0, 0, 0, 0]]
        assert target.tolist() == [[2, *ids[1], *pad]]

    def test_the_longest_texts_fit(self):
        source, written = LETTERS.encode("abcabcabc"), output(WORDS.encode("AA " * 10), False)
        attend = Attending()
        found = attention_map(attend, "cross", source, written, BOTH, CONFIG, Search())
        assert [array.shape for array in attend.seen[0]] == [(1, 10), (1, 10)]
        assert found.rows == ["AA"] * 10 and len(found.columns) == 10

    def test_an_empty_output_has_a_row(self):
        found = attention_map(Attending(), "cross", [4], output([]), BOTH, CONFIG, Search())
        assert found.rows == ["</s>"]

    def test_an_output_that_did_not_end_has_no_row_for_its_end(self):
        written = output(WORDS.encode("CC AA"), ended=False)
        found = attention_map(Attending(), "decoder", [4], written, BOTH, CONFIG, Search())
        assert (found.rows, found.columns) == (["CC", "AA"], ["<s>", "CC"])

    @pytest.mark.parametrize(
        ("search", "begun"),
        [
            (Search(start_id=7), [7]),
            (Search(start_id=7, forced_first_id=6), [7]),
            (Search(prompt=(2, 8, 4)), [2, 8, 4]),
        ],
    )
    def test_the_decoder_is_given_what_the_search_began_with(self, search, begun):
        given, ids = (LETTERS.encode("ab "), output([6, 4])), [6, 4]
        for kind in ("decoder", "cross"):
            attend = Attending()
            found = attention_map(attend, kind, *given, BOTH, CONFIG, search)
            assert attend.seen[0][1][0, : len(begun) + 2].tolist() == [*begun, *ids]
            assert found.rows == ["CC", "AA", "</s>"]
            wanted = [(len(begun) + row) / 2 for row in range(3)]  # of the second column
            assert found.weights[0, 0, :, 1].tolist() == wanted
        columns = attention_map(Attending(), "decoder", *given, BOTH, CONFIG, search).columns
        assert columns == [WORDS.token(number) for number in (*begun, *ids)]
        read = attention_map(Attending(), "encoder", *given, BOTH, CONFIG, search)
        assert read.rows == read.columns == ["a", "b", "\u2423", "</s>"]

    def test_the_last_row_is_the_token_that_ended_the_output(self):
        ids, search = np.array([4, 5, 8]), Search(rule="generate", end_ids=(3, 8))
        ended = hypothesis(ids, -1.0, CONFIG, search)
        assert (ended.ids, ended.ended, ended.end_id) == ([4, 5], True, 8)
        found = attention_map(Attending(), "cross", [4], ended, BOTH, CONFIG, search)
        assert found.rows == ["AA", "BB", "EE"]
        cut = hypothesis(ids[:2], -1.0, CONFIG, search)
        assert (cut.ids, cut.ended, cut.end_id) == ([4, 5], False, None)

    def test_an_output_may_be_longer_than_any_source(self):
        config = TransformerConfig(**{**CONFIG.to_dict(), "max_source_length": 4})
        written = output(WORDS.encode("AA " * 10), False)
        attend = Attending()
        attention_map(attend, "cross", [4], written, BOTH, config, Search())
        assert [array.shape for array in attend.seen[0]] == [(1, 4), (1, 10)]

    def test_tokens_are_shown_as_they_are(self, tmp_path):
        assert [shown(token) for token in ("a", " ", "\t", "\u200b")] == [
            "a", "\u2423", "\\t", "\\u200b"
        ]  # fmt: skip
        assert [WORDS.token(index) for index in range(5)] == ["<pad>", "<unk>", "<s>", "</s>", "AA"]
        pieces = build_vocabulary("sentencepiece", ["low lower lowest " * 20], 15)
        assert [pieces.token(n) for n in range(4)] == ["<pad>", "<unk>", "<s>", "</s>"]
        assert "".join(map(pieces.token, pieces.encode("low lower"))) == "\u2581low\u2581lower"


def pictures(path, **changed):
    given = {"kind": "cross", "attend": Attending(), "several": False} | changed
    return Pictures(path, vocabularies=BOTH, config=CONFIG, search=Search(), **given)


class TestPictures:
    def test_one_file_or_one_for_each_text(self, tmp_path):
        pictures(tmp_path / "one.png").draw(1, [4], output([4]))
        several = pictures(tmp_path / "more.svg", several=True)
        for number, ids in enumerate([[4], [], [5, 6]], 1):
            several.draw(number, ids, output([4]))
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["more-1.svg", "more-3.svg", "one.png"]
        faults_say(several.notes(), ("no picture", "line 2", "no token"))

    def test_a_file_that_cannot_be_written(self, tmp_path):
        (tmp_path / "out.png").mkdir()
        with pytest.raises(UserError, match=r"cannot write .*out.png: "):
            pictures(tmp_path / "out.png").draw(1, [4], output([4]))

    @pytest.mark.parametrize(
        ("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("PDF", b"%PDF")]
    )
    def test_formats(self, tmp_path, ending, start):
        path = tmp_path / f"out.{ending}"
        pictures(path).draw(1, [4, 5], output([4]))
        assert path.read_bytes().startswith(start) and list(tmp_path.iterdir()) == [path]


def random_map(layers, heads, rows, columns):
    draw = np.random.default_rng(0)
    return Map(draw.random((layers, heads, len(rows), len(columns))), rows, columns)


def figure_for(found, title="a \u2192 A", families=("DejaVu Sans",)):
    return attention_plot.figure_of(found, "cross attention", title, list(families))


def panels_of(figure):
    return [axes for axes in figure.axes if axes.get_title()]


class TestDrawing:
    def test_a_panel_for_each_layer_and_head(self):
        found = random_map(2, 3, ["$x$", "longer", "</s>"], ["a", "b"])
        figure = figure_for(found, title="cost $5 and $6 \\alpha")
        panels = panels_of(figure)
        assert [axes.get_title() for axes in panels] == [
            f"layer {layer}, head {head}" for layer in (1, 2) for head in (1, 2, 3)
        ]
        for number, axes in enumerate(panels):
            (image,) = axes.images
            assert (image.get_array() == found.weights[number // 3, number % 3]).all()
            assert image.get_clim() == (0, 1)
            rows, columns = axes.get_yticklabels(), axes.get_xticklabels()
            assert [text.get_text() for text in rows] == (found.rows if number % 3 == 0 else [])
            assert [text.get_text() for text in columns] == (found.columns if number > 2 else [])
            assert not any(text.get_parse_math() for text in (*rows, *columns, *figure.texts))
        first, last = panels[0].get_position(), panels[-1].get_position()
        assert first.y0 > last.y1 and first.x1 < last.x0
        assert "cost $5 and $6 \\alpha" in figure.texts[0].get_text()

    @pytest.mark.parametrize("letter", ["m", "W"])
    def test_everything_stays_inside_and_apart(self, letter):
        tokens = [letter * (1 + number) for number in range(30)]
        figure = figure_for(random_map(2, 2, tokens, tokens), title="words " * 200)
        whole, renderer = figure.bbox, FigureCanvasAgg(figure).get_renderer()
        first = panels_of(figure)[0].get_tightbbox(renderer)
        for axes in panels_of(figure):
            box = axes.get_tightbbox(renderer)
            assert whole.x0 <= box.x0 and whole.y0 <= box.y0 and box.x1 <= whole.x1
            labels = [text.get_window_extent(renderer) for text in axes.get_xticklabels()]
            assert not any(a.overlaps(b) for a, b in itertools.pairwise(labels))
        heading = figure.texts[0].get_window_extent(renderer)
        assert first.y1 <= heading.y0 and heading.y1 <= whole.y1 and heading.x1 <= whole.x1

    def test_many_tokens_and_panels_stay_within_bounds(self):
        assert attention_plot.side(16, 512) == attention_plot.LARGEST
        places, shown_labels = attention_plot.labels(["tokens"] * 512, 60 / 16)
        assert places[1] > 1 and len(places) * attention_plot.LABEL <= 72 * 60 / 16
        assert set(shown_labels) == {"tokens"}
        assert attention_plot.labels(["a" * 40], 1.2) == ([0], ["a" * 15 + "\u2026"])


@pytest.fixture
def font_of(tmp_path):
    """A function: a font file of a family whose only glyphs, squares, are those of some letters."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    def make(letters: str, family: str) -> str:
        pen = TTGlyphPen(None)
        for number, point in enumerate([(100, 0), (100, 800), (900, 800), (900, 0)]):
            (pen.lineTo if number else pen.moveTo)(point)
        pen.closePath()
        names = [".notdef", *(f"uni{ord(letter):04X}" for letter in letters)]
        builder = FontBuilder(1000, isTTF=True)
        builder.setupGlyphOrder(names)
        builder.setupCharacterMap({ord(letter): f"uni{ord(letter):04X}" for letter in letters})
        builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
        builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 100)))
        builder.setupHorizontalHeader(ascent=800, descent=-200)
        builder.setupNameTable({"familyName": family, "styleName": "Regular"})
        builder.setupOS2()
        builder.setupPost()
        path = tmp_path / f"{family}.ttf"
        builder.save(path)
        return str(path)

    return make


@pytest.fixture
def hangul(font_of):
    return font_of(HANGUL, "Three Syllables")


class TestFonts:
    @pytest.fixture(autouse=True)
    def nothing_remembered(self):
        for remembered in (fonts.installed, fonts.characters_of):
            remembered.cache_clear()
        yield
        for remembered in (fonts.installed, fonts.characters_of):
            remembered.cache_clear()

    def test_fonts_are_looked_for_once(self, monkeypatch, hangul):
        from matplotlib import font_manager

        searches, known = [], font_manager.fontManager.ttflist
        found = lambda: searches.append(1) or [hangul]  # noqa: E731
        monkeypatch.setattr(font_manager, "findSystemFonts", found)
        counts = []
        for _ in range(3):
            assert fonts.families_for(HANGUL)[1] == set()
            counts.append(sum(entry.fname == hangul for entry in known))
        assert searches == [1] and counts == [1, 1, 1]

    def test_what_is_missing_is_named_and_never_warned_of(self, monkeypatch, tmp_path):
        monkeypatch.setattr(fonts, "installed", lambda: [])
        found = random_map(1, 1, list(HANGUL), ["a"])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            missing = draw_map(found, "cross", "a", tmp_path / "out.png")
        assert missing == set(HANGUL) and (tmp_path / "out.png").exists()
        said = pictures(tmp_path / "x.png")
        said.missing |= missing
        (note,) = said.notes()
        says(note, "no font", " ".join(sorted(HANGUL)))

    def test_a_font_that_has_them_is_found_and_drawn_with(self, monkeypatch, hangul):
        from matplotlib import font_manager

        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [hangul])
        families, missing = fonts.families_for(HANGUL + "a")
        assert families[-1] == "Three Syllables" and missing == set()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure_for(random_map(1, 1, list(HANGUL), ["a"]), HANGUL, families).canvas.draw()

    def test_those_that_have_most_are_taken(self, monkeypatch, font_of):
        from matplotlib import font_manager

        files = [font_of("국어", "Two"), font_of(HANGUL[:1], "One"), font_of(HANGUL, "All")]
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: files[:2])
        assert fonts.families_for(HANGUL + "\uac00")[0][1:] == ["Two", "One"]
        assert fonts.families_for(HANGUL + "\uac00")[1] == {"\uac00"}
        fonts.installed.cache_clear()
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: files)
        assert fonts.families_for(HANGUL)[0][1:] == ["All"]

    def test_the_order_of_fonts_and_files_that_are_none(self, monkeypatch, tmp_path, hangul):
        from matplotlib import font_manager

        names = ["a-Bold.ttf", "z-Regular.ttf", "a.otf"]
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: names)
        assert fonts.installed() == ["z-Regular.ttf", "a.otf", "a-Bold.ttf"]
        (tmp_path / "broken.ttf").write_bytes(b"no font")
        assert fonts.characters_of(str(tmp_path / "broken.ttf")) == set()
        assert fonts.characters_of(hangul) == set(HANGUL)
