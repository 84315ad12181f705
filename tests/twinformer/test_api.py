"""The library's front door: what is public, and that it does what the commands do."""

import subprocess
import sys

import numpy as np
import pytest
from messages import saying

import twinformer
from training_recipe.options.request import as_settings

FRAMEWORKS = ("torch", "jax")


def test_every_public_name_is_there():
    for name in twinformer.__all__:
        assert getattr(twinformer, name), name
    assert set(twinformer.__all__) <= set(dir(twinformer))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        twinformer.trian  # noqa: B018


def test_importing_it_imports_no_framework():
    code = (
        "import sys, twinformer; twinformer.Translator, twinformer.train, twinformer.UserError;"
        "print([n for n in ('torch', 'jax', 'flax', 'matplotlib') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_load_gives_the_frameworks_own_model(runs, backend):
    model = twinformer.load(runs["torch"], backend=backend)
    assert type(model).__module__.partition("_")[0] == {"torch": "torch", "jax": "flax"}[backend]
    assert twinformer.load(runs["jax"]).config == model.config
    with pytest.raises(twinformer.UserError, match="choose torch or jax"):
        twinformer.load(runs["jax"], backend="tensorflow")  # pyright: ignore


def test_comparing_names_all_that_is_missing(monkeypatch):
    """Both frameworks, and the library of a side that is its class."""
    monkeypatch.setattr("parity.frameworks.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "parity.comparison.comparison", None)
    said = saying("not installed: torch, jax, flax, transformers", "pip install")
    with pytest.raises(twinformer.UserError, check=said):
        twinformer.compare("hf:a", "b")


def test_an_empty_name_is_not_the_current_folder(tmp_path):
    for opened in (twinformer.load, twinformer.Translator):
        with pytest.raises(twinformer.UserError, check=saying("''", "no path", "'.'")):
            opened("")
    with pytest.raises(twinformer.UserError, check=saying("''", "no path", "'.'")):
        twinformer.convert("", tmp_path / "x", to="torch")


def test_the_folder_of_another_library_is_to_be_converted_first(runs, tmp_path):
    """It has a config.json, and nothing says that it has none."""
    twinformer.convert(runs["torch"], tmp_path / "theirs", to="torch")
    folder = tmp_path / "theirs"
    (folder / "config.json").write_text('{"model_type": "marian", "d_model": 6}')
    for opened in (twinformer.load, twinformer.Translator):
        with pytest.raises(
            twinformer.UserError, match="of another library: make a folder"
        ) as caught:
            opened(folder, backend="torch")
        assert f"python -m convert {folder} NEW --to torch" in str(caught.value)


class TestTranslator:
    @pytest.mark.parametrize("backend", FRAMEWORKS)
    def test_it_says_what_the_command_says(self, runs, backend, capsys):
        from twinformer.commands.translate import main

        texts = ["abcab", "ba", "", "cabbage"]
        flags = ["--backend", backend, "--beam", "3", "--nbest", "3", "--scores"]
        assert main([str(runs["torch"]), *texts, *flags]) == 0
        lines = capsys.readouterr().out.splitlines()
        translate = twinformer.Translator(runs["torch"], backend=backend)
        found = translate(texts, beam=3, nbest=3)
        said = [
            f"{number}\t{one.score:.4f}\t{one.text}"
            for number, best in enumerate(found, 1)
            for one in (best, *best.others)
        ]
        assert said == lines

    def test_the_working_folder_may_change(self, runs, monkeypatch):
        """Weights are read when they are needed first."""
        monkeypatch.chdir(runs["torch"].parent)
        translate = twinformer.Translator(runs["torch"].name)
        monkeypatch.chdir("/")
        assert translate("abcab")[0].text == twinformer.Translator(runs["torch"])("abcab")[0].text

    def test_both_frameworks_say_the_same(self, runs):
        one, other = (
            twinformer.Translator(runs["torch"], backend=backend)(["abcab", "gag"], nbest=2)
            for backend in FRAMEWORKS
        )
        for a, b in zip(one, other, strict=True):
            assert (a.text, a.ended) == (b.text, b.ended)
            assert a.score == pytest.approx(b.score, abs=1e-5)
            assert [c.text for c in a.others] == [c.text for c in b.others]

    def test_one_text_is_a_list_of_one(self, runs):
        translate = twinformer.Translator(runs["torch"])
        assert translate("abc") == translate(["abc"])
        assert translate([]) == []

    def test_samples_follow_the_seed(self, runs):
        translate = twinformer.Translator(runs["torch"], backend="torch")
        first, again, other = (translate("abcab", sample=True, seed=s) for s in (1, 1, 2))
        assert first == again and first != other

    def test_what_is_no_text_is_named(self, runs):
        translate = twinformer.Translator(runs["torch"], backend="torch")
        with pytest.raises(twinformer.UserError, check=saying("text 1", None, "1 more")):
            translate(["a", None, "b", 3])

    def test_faults_are_named(self, runs):
        translate = twinformer.Translator(runs["torch"])
        with pytest.raises(twinformer.UserError, match="beam is 0") as raised:
            translate("abc", beam=0, temperature=0.0)
        assert len(raised.value.faults) == 2
        with pytest.raises(twinformer.UserError, match="longer"):
            translate("abc" * 10)
        assert translate("abc" * 10, skip_long=True)[0].text == ""
        with pytest.raises(twinformer.UserError, match="no checkpoint of step 7"):
            twinformer.Translator(runs["torch"], checkpoint=7)
        with pytest.raises(twinformer.UserError, match="does not exist"):
            twinformer.Translator(runs["torch"] / "nowhere")


class TestTrain:
    SMALL = {
        "hidden_dim": 8, "inner_dim": 8, "num_heads": 2, "num_encoder_layers": 1,
        "num_decoder_layers": 1, "steps": 3, "batch_tokens": 64, "valid_examples": 2,
        "test_examples": 2, "source_vocabulary": "characters", "target_vocabulary": "whitespace",
    }  # fmt: skip

    @pytest.mark.sampled(1)
    @pytest.mark.parametrize("backend", FRAMEWORKS)
    def test_a_table_becomes_a_run(self, backend, tmp_path, capsys):
        table = tmp_path / "pairs.csv"
        rows = [f"{a}{b},{a.upper()} {b.upper()}" for a in "abcdefg" for b in "abcdefg"]
        table.write_text("Q,A\n" + "\n".join(rows) + "\n", encoding="utf-8")
        run = twinformer.train(
            data=table, columns=("Q", "A"), backend=backend, out=tmp_path / "run", **self.SMALL
        )
        assert run.folder == tmp_path / "run" and run.steps == 3
        assert set(run.scores) == {"BLEU", "chrF"}
        assert twinformer.Translator(run.folder)("ab")[0].text is not None

    def test_every_fault_is_named(self):
        with pytest.raises(twinformer.UserError) as raised:
            twinformer.train(stepz=3, seed="x", beam=0)
        assert len(raised.value.faults) == 3
        assert "stepz" in str(raised.value) and "steps" in str(raised.value)

    def test_settings_are_named_as_they_are_given(self, tmp_path, monkeypatch):
        """And no flag; a command that is to be typed stays one."""
        monkeypatch.chdir(tmp_path)
        with pytest.raises(twinformer.UserError, check=saying("dropout: 3.0")) as raised:
            twinformer.train(dropout=3.0, from_step=2)
        assert "--" not in str(raised.value) + "".join(raised.value.faults)
        with pytest.raises(twinformer.UserError, check=saying("source_lang and target_lang")):
            twinformer.train(data="none", backend="torch")
        typed = "python train.py --resume runs/a, a lower --peak-lr; torchrun --nproc-per-node 2"
        assert as_settings(typed) == typed.replace("--peak-lr", "peak_lr")
        assert as_settings("my--data/a, runs/a--seed/b, --seed.txt") == (
            "my--data/a, runs/a--seed/b, --seed.txt"
        )


class TestWrongKinds:
    """Arguments that no command could give; each mistake is named, all at once."""

    def test_conversion(self, tmp_path) -> None:
        with pytest.raises(twinformer.UserError) as caught:
            twinformer.convert(
                3, tmp_path / "x", to=None, config=5, fields=[1], shard_size=-1, dry_run="no"
            )
        for name in ("source", "to", "config", "fields", "shard_size", "dry_run"):
            assert any(fault.startswith(f"{name} is ") for fault in caught.value.faults), name
        with pytest.raises(twinformer.UserError, check=saying("'nope'")):
            twinformer.convert(tmp_path, tmp_path / "x", to="torch", family="nope", shard_size="x")

    def test_comparison(self) -> None:
        wrong = {
            "precisions": ("foo",), "longest": "x", "max_ram": -1, "frameworks": ("torch", "foo"),
            "devices": "cpu", "gradients": "no", "seed": -1,
        }  # fmt: skip
        with pytest.raises(twinformer.UserError) as caught:
            twinformer.compare("a", "b", **wrong)
        for name in wrong:
            assert any(fault.startswith(f"{name} is ") for fault in caught.value.faults), name
        with pytest.raises(twinformer.UserError, match="precisions is 'float32'"):
            twinformer.compare("a", "b", precisions="float32")

    def test_what_is_no_path(self) -> None:
        for call in (lambda: twinformer.load(None), lambda: twinformer.compare(3, "b")):
            with pytest.raises(twinformer.UserError, match="give the path"):
                call()

    def test_translator(self, runs) -> None:
        with pytest.raises(twinformer.UserError) as caught:
            twinformer.Translator(
                runs["torch"], checkpoint="newest", batch_size=1.5, device="cuda:9"
            )
        assert len(caught.value.faults) == 3
        translate = twinformer.Translator(runs["torch"])
        for texts in (None, 5, [1]):
            with pytest.raises(twinformer.UserError, match="text"):
                translate(texts)
        with pytest.raises(twinformer.UserError, check=saying("temperature", "sample=True")):
            translate("a", temperature=0.5)
        with pytest.raises(twinformer.UserError, match="both given"):
            translate("a", truncate=True, skip_long=True)
        with pytest.raises(twinformer.UserError, match="temperature is 4e"):
            translate("a", sample=True, temperature=4e38)


def test_settings_as_python_has_them(tmp_path) -> None:
    from twinformer.api import _plain

    assert _plain((1, np.int64(2))) == ("1", "2") and _plain(["Q", "A"]) == ("Q", "A")
    assert (_plain(np.int64(3)), _plain(np.float32(0.5))) == (3, 0.5)
    assert type(_plain(np.int64(3))) is int and _plain(tmp_path) == str(tmp_path)
