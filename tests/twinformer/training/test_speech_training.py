"""Fine-tuning a model that hears: the library's own steps, whole runs, and what is wrong."""

import csv
import json

import numpy as np
import pytest
import torch
from messages import says
from recording_cases import sound, write_wav
from small_training import largest_difference
from speech_tokenizers import write_json
from whisper_cases import build

from convert.__main__ import main as convert
from convert.conversion.opening import open_model
from training_recipe.backend import Checkpoint
from training_recipe.batching.batches import BatchPlan
from training_recipe.batching.encoded import frames_of, sound_files_of
from training_recipe.corpora.corpus import load_corpus
from training_recipe.options.settings import TrainingSettings
from training_recipe.sound.audio import Audio
from training_recipe.sound.features import log_mel
from training_recipe.sound.sound_files import SoundFiles
from training_recipe.text.model_vocabularies import spoken
from transformer_spec import UserError
from twinformer.__main__ import main
from twinformer.frameworks import training_backend

STEPS, BOUND, EPS, RATE = 3, 1e-11, 1e-6, 1e-3
TEXTS = ("on the tree", "a hare", "in the tar", "there", "one ant", "a tin hat", "he", "ha the")
SETTINGS = TrainingSettings(
    dtype="float64", device="cpu", label_smoothing=0.0, clip_norm=0.0, weight_decay=0.01,
    adam_beta2=0.999, adam_eps=EPS,
)  # fmt: skip
pytestmark = pytest.mark.usefixtures("both_frameworks")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Whisper of the library with windows of 30 s and the vocabulary of English."""
    place = tmp_path_factory.mktemp("whisper")
    ids = {"pad_token_id": 50256, "bos_token_id": 50256, "eos_token_id": 50256}
    model = build(
        vocab_size=51864, max_source_positions=1500, max_target_positions=40, encoder_layers=1,
        decoder_layers=1, encoder_ffn_dim=48, decoder_ffn_dim=48, decoder_start_token_id=50257,
        **ids,
    )  # fmt: skip
    model.save_pretrained(place)
    return write_json(place, 51864)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Eight recordings of less than half a second and what is said in them."""
    place = tmp_path_factory.mktemp("spoken")
    with (place / "pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("audio", "text"))
        for number, text in enumerate(TEXTS):
            name = f"{number}.wav"
            write_wav(place / name, sound(0.2 + 0.02 * number, seed=number))
            rows.writerow((name, text))
    return place / "pairs.csv"


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """Features are kept in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def batches(folder, table):
    """The opened model and our batches of four recordings."""
    opened = open_model(folder)
    both = spoken(opened.text(), None)
    with table.open() as file:
        rows = [(str(table.parent / row["audio"]), row["text"]) for row in csv.DictReader(file)]
    pairs = [(both[0].encode(path), both[1].encode(text)) for path, text in rows]
    config = opened.config
    plan = BatchPlan(
        pairs, 4 * 1500, pad_id=config.pad_id, decoder_start_id=config.decoder_start_id,
        frames=frames_of(both), sounds=sound_files_of(both),
    )  # fmt: skip
    return opened, [plan.batch(number) for number in range(1, STEPS + 1)]


class TestSteps:
    @pytest.fixture(scope="class")
    @classmethod
    def library(cls, folder, table):
        """Batches, and what the library's class and torch's optimizer make of them."""
        from transformers import WhisperForConditionalGeneration

        opened, made = batches(folder, table)
        model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float64).eval()
        # As the class itself has them; transformers 5 thaws them while it reads a file.
        model.model.encoder.embed_positions.requires_grad_(False)
        trained = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
        ]
        optimizer, losses = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=EPS), []
        pad = opened.config.pad_id
        for batch in made:
            optimizer.zero_grad()
            labels = torch.from_numpy(batch.target_out.astype(np.int64))
            features = torch.from_numpy(batch.source).double().transpose(1, 2)
            loss = model(features, labels=labels.masked_fill(labels == pad, -100)).loss
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return opened, made, losses, model

    @pytest.mark.parametrize("backend", ["torch", "jax"])
    @pytest.mark.usefixtures("float64", "quick_compiling")
    def test_are_those_of_the_library(self, backend, library, tmp_path):
        opened, made, losses, model = library
        weights = {n: w.astype(np.float64) for n, w in opened.weights().items()}
        make = training_backend(backend)
        ours = make(opened.config, SETTINGS, Checkpoint(weights))
        for number, (batch, wanted) in enumerate(zip(made, losses, strict=True), 1):
            result = ours.train_step([batch], number, RATE)
            assert float(result.loss_sum) / float(result.tokens) == pytest.approx(wanted, abs=BOUND)
        model.save_pretrained(tmp_path / "theirs")
        theirs = open_model(tmp_path / "theirs").weights()
        after = ours.state().weights
        assert largest_difference(after, theirs) < BOUND
        frozen = "encoder.pos_embedding.weight"
        assert np.array_equal(after[frozen], weights[frozen])
        assert largest_difference(after, weights) > 1e-4

    def test_labels_are_the_frame_the_text_and_the_end(self, folder, table):
        opened, (batch, *_) = batches(folder, table)
        row = batch.target_out[0].tolist()
        assert row[0] == 50362 and 50256 in row and row[1] == 220  # no timestamps, blank, end
        assert batch.target_in[0, 0] == 50257 and batch.source.shape == (4, 3000, 5)


class TestFeatures:
    def test_kept_ones_are_those_of_the_whole_window(self, tmp_path):
        for seconds in (0.03, 1.0, 29.995, 30.0):
            path = write_wav(tmp_path / f"{seconds}.wav", sound(seconds, seed=3))
            heard = SoundFiles(5, 1500)
            numbers = heard.encode(str(path))
            wanted = log_mel(np.concatenate([*Audio(path).blocks()]), 5)
            for files in (heard, SoundFiles(5, 1500)):  # the second from the file
                files.encode(str(path))
                assert np.array_equal(files.features(numbers, 1)[0], wanted), seconds

    def test_damaged_ones_are_made_again(self, tmp_path):
        path = write_wav(tmp_path / "a.wav", sound(0.5))
        heard = SoundFiles(5, 1500)
        numbers = heard.encode(str(path))
        before = heard.features(numbers, 1)
        (kept,) = heard._kept
        for damage in (b"", kept.read_bytes()[:300]):
            kept.write_bytes(damage)
            assert np.array_equal(heard.features(numbers, 1), before)
            again = SoundFiles(5, 1500)
            assert np.array_equal(again.features(again.encode(str(path)), 1), before)

    def test_one_that_is_cut_off_is_said(self, tmp_path):
        path = write_wav(tmp_path / "cut.wav", sound(1.0))
        path.write_bytes(path.read_bytes()[:9000])
        for heard in (SoundFiles(5, 1500), SoundFiles(5, 1500)):  # the second from the file
            heard.encode(str(path))
            (note,) = heard.notes
            says(note, f"{path} is cut off")

    def test_too_long_ones_have_more_ids_than_there_are_positions(self, tmp_path):
        path = write_wav(tmp_path / "long.wav", sound(30.1))
        assert len(SoundFiles(5, 1500).encode(str(path))) == 1501

    def test_files_that_hold_no_sound(self, tmp_path):
        names = [tmp_path / f"{number}.wav" for number in range(9)]
        for name in names:
            name.write_bytes(b"RIFFxxxxWAVE")
        with pytest.raises(UserError) as told:
            SoundFiles(5, 1500).hear(map(str, names))
        assert len(told.value.faults) == 9
        says(str(told.value), "more of 9 files hold no sound")


class TestSplit:
    def rows(self, place, order):
        """A corpus of forty sounds, each under two names, the second half copies of the first."""
        place.mkdir(parents=True)
        with (place / "pairs.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("audio", "text"))
            for number in order:
                write_wav(place / f"{number}.wav", sound(0.01, seed=number % 40))
                rows.writerow((f"{number}.wav", f"text {number % 40}"))
        return load_corpus(str(place / "pairs.csv"), columns=("audio", "text"), spoken=True)

    def test_depends_on_what_is_heard_alone(self, tmp_path):
        here = self.rows(tmp_path / "a", range(80))
        there = self.rows(tmp_path / "far/away", reversed(range(80)))
        for part in ("train", "valid", "test"):
            said = [{e.targets for e in getattr(each, part)} for each in (here, there)]
            assert said[0] == said[1] and said[0]
        texts = [{e.targets for e in getattr(here, part)} for part in ("train", "valid", "test")]
        assert not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])


FLAGS = (
    "--columns", "audio,text", "--steps", "4", "--evaluate-every", "2", "--save-every", "2",
    "--batch-tokens", "6000", "--warmup-steps", "1", "--peak-lr", "1e-3", "--valid-examples", "2",
    "--test-examples", "2", "--beam", "2", "--device", "cpu", "--log-every", "1",
)  # fmt: skip


def curve(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


class TestRuns:
    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, folder, table, tmp_path_factory):
        """The folder of a whole run by PyTorch, interrupted by nothing."""
        place = tmp_path_factory.mktemp("run") / "a"
        flags = ["--init", str(folder), "--data", str(table), *FLAGS, "--out", str(place)]
        assert main(["train", "--backend", "torch", *flags]) == 0
        return place

    def test_is_told_and_saved(self, run, capsys):
        assert len(curve(run)) >= 4 and np.isfinite(curve(run)).all()
        described = json.loads((run / "vocabulary" / "source.json").read_text())
        assert described["kind"] == "sound_files" and described["feature_dim"] == 5
        assert main(["inspect", str(run)]) == 0
        assert "feature_dim" in capsys.readouterr().out

    def test_is_the_same_in_jax(self, run, tmp_path, folder, table):
        flags = ["--init", str(folder), "--data", str(table), *FLAGS, "--out", str(tmp_path / "b")]
        assert main(["train", "--backend", "jax", *flags]) == 0
        assert np.allclose(curve(run), curve(tmp_path / "b"), rtol=2e-4)

    def test_goes_back_to_the_library(self, run, tmp_path, folder):
        from transformers import WhisperForConditionalGeneration

        assert convert([str(run), str(tmp_path / "back"), "--to", "whisper"]) == 0
        assert convert([str(run), str(tmp_path / "pt"), "--to", "whisper-openai"]) == 0
        model = WhisperForConditionalGeneration.from_pretrained(tmp_path / "back")
        ours = open_model(run).weights()["decoder.embedding.weight"]
        assert np.array_equal(model.model.decoder.embed_tokens.weight.detach().numpy(), ours)
        assert (tmp_path / "back" / "tokenizer.json").exists()

    def test_words_are_not_cut_at_random(self, folder):
        vocabulary = open_model(folder).text()[1]
        with pytest.raises(UserError, match="cannot be cut by BPE-dropout"):
            vocabulary.sample(["a"], 0.1, 0)

    def test_no_translator(self, run):
        from twinformer import Translator

        with pytest.raises(UserError, match="hears, and reads no text: .* transcribe"):
            Translator(run)


class TestRefused:
    @pytest.mark.parametrize(
        ("data", "told"),
        [
            ("text.csv", ("3 of 3 sources name no sound file", "hello", "folder of text.csv")),
            ("cmudict", ("the model of --init hears", "--columns audio,text")),
            ("--languages fr", ("languages 'fr' were given, and the model has none to choose",)),
        ],
    )
    def test_texts_are_no_recordings(self, data, told, folder, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "text.csv").write_text("a,b\nhello,one\nyou,two\nthere,three\n")
        columns = [] if data == "cmudict" else ["--columns", "a,b"]
        given = ["--data", "text.csv", *data.split()] if "--" in data else ["--data", data]
        flags = ["--init", str(folder), *given, *columns, "--device", "cpu"]
        assert main(["train", "--backend", "torch", *flags]) == 2
        says(capsys.readouterr().err, *told)
        assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
