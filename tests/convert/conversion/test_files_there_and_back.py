"""Every file of another library's folder comes into a folder of ours and goes back as it was."""

import json
import os
import shutil

import pytest
from folders_of_hub import FAMILIES, sentences
from messages import says

from convert.__main__ import main
from convert.checkpoints.records import LEDGER
from convert.conversion import ConversionRequest, convert

TO = {"mbart50": "mbart", "nllb": "m2m100"}
CARD = "---\nlicense: apache-2.0\n---\n# A model\n"


def family_of(name: str) -> str:
    if name == "marian-flax":
        return name
    return TO.get(name.partition("-")[0], name.partition("-")[0])


def contents(folder):
    """The bytes of every file but the account of the conversion."""
    names = sorted(path.name for path in folder.iterdir() if path.name != LEDGER)
    return {name: (folder / name).read_bytes() for name in names}


def account(folder):
    return json.loads((folder / LEDGER).read_text())["files"]


def through(folder, place, to, twin="torch"):
    """A folder converted to a folder of ours and from there to a library's."""
    convert(ConversionRequest(folder, place / "ours", to=twin))
    convert(ConversionRequest(place / "ours", place / "back", to=to))
    return place / "back"


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_files_byte_by_byte(hub_folders, tmp_path, name) -> None:
    folder = hub_folders(name)
    back = through(folder, tmp_path, family_of(name))
    assert contents(back) == contents(folder)
    inside = account(tmp_path / "ours")
    assert {path.name for path in folder.iterdir()} <= inside.keys()
    kept = [said["to"] for said in inside.values() if said["what"] == "carried"]
    assert all((tmp_path / "ours" / place).is_file() for place in kept)
    below = [p for p in (tmp_path / "ours").rglob("*") if p.is_file()]
    names = {path.relative_to(tmp_path / "ours").as_posix() for path in below}
    assert names <= account(back).keys()


def test_what_is_told_of_files(hub_folders, tmp_path, capsys) -> None:
    """By inspect, by a dry run, and without a tokenizer."""
    folder = hub_folders.copy("marian", tmp_path / "opus")
    (folder / "README.md").write_text(CARD)
    (folder / "away.txt").symlink_to(tmp_path / "elsewhere.txt")
    (folder / "tf_model.h5").symlink_to(tmp_path / "elsewhere.h5")
    assert main(["inspect", str(folder)]) == 0
    said = capsys.readouterr().out
    says(said, "source.spm -> vocabulary/source.spm", "carried")
    says(said, "README.md -> original/README.md", "carried")
    says(said, "away.txt", "left out", "link")
    assert main(["inspect", str(folder), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["files"]
    assert {path.name for path in folder.iterdir()} <= listed.keys()
    assert main([str(folder), str(tmp_path / "ours"), "--to", "torch", "--dry-run"]) == 0
    said = capsys.readouterr().out
    says(said, "source.spm -> vocabulary/source.spm", "carried")
    says(said, "generation_config.json -> search.json", "made")
    says(said, "warning", "away.txt is left out")
    assert said.count("warning") == 1
    convert(ConversionRequest(folder, tmp_path / "ours", to="torch"))
    shutil.rmtree(tmp_path / "ours/vocabulary")
    done = convert(ConversionRequest(tmp_path / "ours", tmp_path / "back", to="marian"))
    says(done.notes, "no tokenizer", tmp_path / "ours")


def test_by_way_of_the_other_twin(hub_folders, tmp_path) -> None:
    pytest.importorskip("orbax.checkpoint")
    folder = hub_folders("marian-separate")
    assert contents(through(folder, tmp_path, "marian", "flax")) == contents(folder)


def test_between_folders_of_ours(hub_folders, tmp_path) -> None:
    """Twice between the twins: vocabulary, search, origin and the library's files stay."""
    convert(ConversionRequest(hub_folders("bart"), tmp_path / "one", to="torch"))
    for number, twin in enumerate(("flax", "torch")):
        before, after = tmp_path / ("one", "flax")[number], tmp_path / ("flax", "two")[number]
        convert(ConversionRequest(before, after, to=twin, container="safetensors"))
    for name in ("vocabulary", "original"):
        assert contents(tmp_path / "two" / name) == contents(tmp_path / "one" / name)
    for name in ("search.json", "origin.json", "config.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


class TestMsgpack:
    """A folder of the library's Flax classes becomes the folder of its PyTorch classes."""

    def test_it_is_the_folder_that_pytorch_saves(self, hub_folders, tmp_path) -> None:
        back = through(hub_folders("marian-flax"), tmp_path, "marian")
        assert contents(back) == contents(hub_folders("marian"))

    @pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
    def test_the_library_reads_it_as_the_original(self, hub_folders, tmp_path) -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

        found, back = [], tmp_path / "straight"
        convert(ConversionRequest(hub_folders("marian-flax"), back, to="marian"))
        for folder in (hub_folders("marian"), back):
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
            texts = tokenizer(sentences("val", "en")[:6], padding=True, return_tensors="pt")
            with torch.no_grad():
                outputs = model.generate(**texts, max_length=20).tolist()
            settings = GenerationConfig.from_pretrained(folder).to_dict()
            found.append((type(tokenizer), len(tokenizer), outputs, settings))
        assert found[0] == found[1]
        assert found[1][3]["num_beams"] == 4


class TestWhatIsNoTokenizer:
    """The card, the licence and all else; and what is not carried, with the reason."""

    @pytest.fixture
    def folder(self, hub_folders, tmp_path):
        folder = hub_folders.copy("marian", tmp_path / "opus")
        (folder / "README.md").write_text(CARD)
        (folder / "LICENSE").write_text("Apache")
        (folder / ".gitattributes").write_text("*.bin filter=lfs\n")
        (folder / "benchmark_results.txt").write_text("BLEU 30\n")
        return folder

    def test_they_travel(self, folder, tmp_path) -> None:
        assert contents(through(folder, tmp_path, "marian")) == contents(folder)
        assert (tmp_path / "ours/original/README.md").read_text() == CARD

    def test_what_is_left_out_has_its_reason(self, folder, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr("convert.files.listing.LARGEST", 500_000)
        (folder / "tf_model.h5").write_bytes(b"\x89HDF")
        (folder / "rng_state_0.pth").write_bytes(b"x")
        (folder / "trainer_state.json").write_text("{}")
        (folder / ".DS_Store").write_bytes(b"x")
        (folder / "large.txt").write_bytes(bytes(500_001))
        (folder / "away.txt").symlink_to(tmp_path / "elsewhere.txt")
        (tmp_path / "elsewhere.txt").write_text("secret")
        (folder / "near.txt").symlink_to("LICENSE")
        os.mkfifo(folder / "pipe")
        (folder / "runs/inner").mkdir(parents=True)
        for name in ("a", "inner/b", "inner/c"):
            (folder / "runs" / name).write_text("x")
        done = convert(ConversionRequest(folder, tmp_path / "ours", to="torch"))
        found = account(tmp_path / "ours")
        left = {name: said["reason"] for name, said in found.items() if said["what"] == "left out"}
        told = {
            "tf_model.h5": "named as weights", "rng_state_0.pth": "another training loop",
            "trainer_state.json": "another training loop", ".DS_Store": "a system has left",
            "large.txt": "larger than", "away.txt": "leads out of the folder",
            "pipe": "no plain file", "runs": "a folder of 3 files",
        }  # fmt: skip
        assert left.keys() == told.keys()
        for name, part in told.items():
            assert part in left[name]
        assert (tmp_path / "ours/original/near.txt").read_text() == "Apache"
        for name in ("large.txt", "away.txt", "pipe"):
            says(done.notes, "warning", f"{name} is left out")
        assert done.files == {"carried": 12, "rewritten": 1, "left out": 8}
        says(done.summary, "12 carried, 1 rewritten, 8 left out")

    def test_another_library_gets_the_card_and_no_tokenizer(self, folder, tmp_path) -> None:
        convert(ConversionRequest(folder, tmp_path / "ours", to="torch"))
        for source in (folder, tmp_path / "ours"):
            place = tmp_path / f"plain-{source.name}"
            convert(ConversionRequest(source, place, to="torch-nn"))
            names = {path.name for path in place.iterdir()}
            assert names == {"LICENSE", "README.md", "config.json", "conversion.json", "model.pt"}
            found = account(place)
            for name in ("source.spm", "generation_config.json", "benchmark_results.txt"):
                said = next(said for key, said in found.items() if key.endswith(name))
                assert said["what"] == "left out" and "torch-nn is written" in said["reason"]

    def test_names_that_would_collide(self, folder, tmp_path) -> None:
        """Names of ours in a folder of theirs overwrite nothing."""
        for name in ("source.json", "origin.json", "search.json", "settings.json"):
            (folder / name).write_text(f'"{name} of theirs"')
        assert contents(through(folder, tmp_path, "marian")) == contents(folder)

    def test_one_weight_file_of_a_folder(self, folder, tmp_path) -> None:
        convert(ConversionRequest(folder / "model.safetensors", tmp_path / "one", to="torch"))
        convert(ConversionRequest(folder, tmp_path / "all", to="torch"))
        assert account(tmp_path / "one") == account(tmp_path / "all")
        (folder / "config.json").rename(tmp_path / "config.json")
        request = ConversionRequest(
            folder / "model.safetensors", tmp_path / "alone", to="torch",
            config=tmp_path / "config.json",
        )  # fmt: skip
        convert(request)  # whatever lies beside a file that is nobody's folder
        assert not (tmp_path / "alone/original").exists()


def test_a_tokenizer_that_cannot_be_read(hub_folders, tmp_path) -> None:
    """It stops no weights, is carried as it is, and goes back as it came."""
    folder = hub_folders.copy("marian", tmp_path / "opus")
    (folder / "vocab.json").write_text('{"a": 1')
    done = convert(ConversionRequest(folder, tmp_path / "ours", to="torch"))
    says(done.notes, "warning", "vocab.json", "ids")
    assert (tmp_path / "ours/vocabulary/vocab.json").read_text() == '{"a": 1'
    assert not (tmp_path / "ours/vocabulary/source.json").exists()
    convert(ConversionRequest(tmp_path / "ours", tmp_path / "again", to="flax", container=None))
    convert(ConversionRequest(tmp_path / "again", tmp_path / "back", to="marian"))
    assert contents(tmp_path / "back") == contents(folder)


def test_a_run_that_began_with_a_folder_goes_back_whole(hub_folders, tmp_path) -> None:
    """A run has copies of vocabulary/, original/, origin.json and search.json."""
    from convert_cases import WRITERS

    from convert.checkpoints import Checkpoint
    from convert.conversion.opening import open_model
    from convert.conversion.side_files.made_files import carry

    convert(ConversionRequest(hub_folders("m2m100"), tmp_path / "ours", to="torch"))
    opened, run = open_model(tmp_path / "ours"), tmp_path / "runs/mine"
    step = run / "checkpoints/step_00000010"
    step.mkdir(parents=True)
    weights = {name: array * 2 for name, array in opened.weights().items()}
    zeros = {name: array * 0 for name, array in weights.items()}
    WRITERS["torch"](step, Checkpoint(weights, zeros, zeros, 10))
    carry(tmp_path / "ours", run, opened.config)
    opened.config.save(run / "config.json")
    (run / "settings.json").write_text('{"backend": "torch"}')
    (run / "metrics.jsonl").write_text("")
    convert(ConversionRequest(run, tmp_path / "back", to="m2m100"))
    before, after = contents(hub_folders("m2m100")), contents(tmp_path / "back")
    assert before.pop("model.safetensors") != after.pop("model.safetensors")
    assert before == {name: data for name, data in after.items() if not name.startswith("optim")}
