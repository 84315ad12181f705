"""Certificates: what they hold, every way in which a folder can differ, and the command."""

import copy
import hashlib
import json
import os
import sys

import pytest
from certificate_cases import certified, edit, report_of, row, verify

from parity.card import card
from parity.certificate import read_certificate, write_certificate
from parity.verify_command import given_now, local_path
from transformer_spec import UserError


@pytest.fixture
def folder(tmp_path):
    return certified(tmp_path)


class TestWriting:
    def test_holds_every_file_and_what_computed(self, folder):
        held = read_certificate(folder)
        data = (folder / "model.safetensors").read_bytes()
        expected = {"bytes": 3_000_001, "sha256": hashlib.sha256(data).hexdigest()}
        assert held["files"]["model.safetensors"] == expected
        assert held["files"]["best"] == {"link": "orbax/d"}
        names = ["best", "config.json", "model.safetensors", "orbax/d/.zarray"]
        assert list(held["files"]) == names
        assert held["config"] == {"hidden_dim": 15}
        assert held["versions"]["python"] == sys.version.split()[0] and held["versions"]["numpy"]
        assert held["platform"]["devices"] == dict.fromkeys("ab", held["platform"]["processor"])
        assert [p.name for p in folder.iterdir() if "partial" in p.name] == []

    def test_written_again_it_covers_the_same_files(self, folder):
        before = read_certificate(folder)["files"]
        (folder / "PARITY.md").write_text("ours")
        (folder / ".certificate.json.partial-0a1b2c3d").write_text("left by a killed process")
        write_certificate(folder, report_of())
        assert read_certificate(folder)["files"] == before

    def test_numbers_that_json_has_not_are_kept(self, folder):
        write_certificate(folder, report_of(difference=float("nan")))
        assert read_certificate(folder)["report"]["rows"][2]["float64"] == "nan"

    def test_links_out_and_what_is_no_file_are_one_error(self, folder, tmp_path):
        (tmp_path / "secret").write_text("s")
        (folder / "out").symlink_to(tmp_path / "secret")
        os.mkfifo(folder / "pipe")
        with pytest.raises(UserError, match=r"(?s)2 faults.*out: is a link out.*pipe: is neither"):
            write_certificate(folder, report_of())

    def test_needs_a_folder(self, tmp_path):
        (tmp_path / "model.pt").write_text("")
        for name, said in (("model.pt", "is no folder"), ("none", "does not exist")):
            with pytest.raises(UserError, match=said):
                write_certificate(tmp_path / name, report_of())


class TestFiles:
    def test_as_certified(self, folder, capsys):
        (folder / "README.md").write_text("the page")
        assert verify(folder, "--quick") == 0
        assert "all 4 files are as certified" in capsys.readouterr().out

    def test_all_differences_are_one_message(self, folder, capsys):
        with (folder / "model.safetensors").open("r+b") as file:
            file.seek(2_000_000)
            file.write(b"1234567")
        (folder / "config.json").unlink()
        (folder / "orbax" / "new\nline").write_text("")
        (folder / "best").unlink()
        (folder / "best").symlink_to("/etc")
        assert verify(folder) == 1
        said = capsys.readouterr().out
        assert "FAIL: 4 files are not as certified" in said
        for line in ("missing     config.json", "extra       'orbax/new\\nline'"):
            assert line in said
        assert "changed     model.safetensors" in said
        assert "unreadable  best: is a link out of the folder" in said

    def test_json(self, folder, capsys):
        (folder / "extra").write_text("")
        assert verify(folder, "--json") == 1
        found = json.loads(capsys.readouterr().out)
        assert found["files"]["extra"] == ["extra"] and found["status"] == 1


class TestCertificateItself:
    @pytest.mark.parametrize(
        "change",
        [
            lambda c: c["report"]["rows"][0].update(float64=1e-16),
            lambda c: c["files"].pop("config.json"),
            lambda c: c.pop("sha256"),
            lambda c: c.update(date="2020-01-01"),
        ],
    )
    def test_edited(self, folder, change, capsys):
        edit(folder, change)
        assert verify(folder, "--quick") == 1
        assert "was edited after it was written" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, "has no certificate.json; python -m parity A"),
            ("{", "cannot be read as JSON"),
            ('{"a": 1, "a": 2}', "a key comes twice"),
            ('{"a": 1e999}', "is no finite number"),
            ("[" * 100_000, "cannot be read as JSON"),
            ("[]", "is no twinformer parity certificate"),
        ],
    )
    def test_unusable(self, folder, text, said, capsys):
        path = folder / "certificate.json"
        path.write_text(text) if text else path.unlink()
        assert verify(folder) == 2
        error = capsys.readouterr().err
        assert said in error and error.startswith("error: ") and len(error.splitlines()) == 1

    def test_cut_off(self, folder, capsys):
        path = folder / "certificate.json"
        path.write_bytes(path.read_bytes()[:-200])
        assert verify(folder) == 2
        assert "may be cut off" in capsys.readouterr().err

    @pytest.mark.parametrize(("version", "hint"), [(2, "install a newer"), ("1", "write"), (0, "")])
    def test_another_format_version(self, folder, version, hint, capsys):
        edit(folder, lambda c: c.update(format_version=version))
        assert verify(folder) == 2
        assert (
            f"format_version {version!r}; this program reads 1: {hint}" in capsys.readouterr().err
        )

    def test_parts_of_the_wrong_type_are_one_error(self, folder, capsys):
        edit(folder, lambda c: c.update(files=[], versions=None), honest=True)
        assert verify(folder) == 2
        error = capsys.readouterr().err
        assert "files should be a dict, is list" in error and "versions" in error


class TestComparison:
    def test_same_arguments_and_rows(self, folder, tmp_path, capsys):
        asked = []

        def rerun(*given):
            asked.append(given)
            return report_of(difference=9e-12)

        assert verify(folder, rerun=rerun) == 0
        assert asked == [(str(tmp_path / "a"), str(folder), {"seed": 7, "max_ram": None})]
        said = capsys.readouterr().out
        assert said.count("same verdict, within its bound") == 5 and "all 5 rows" in said

    @pytest.mark.parametrize("wrong", [2e-11, float("nan")])
    def test_a_row_beyond_its_bound(self, folder, wrong, capsys):
        assert verify(folder, rerun=lambda *_: report_of(difference=wrong)) == 1
        said = capsys.readouterr().out
        assert "1 of 5 rows do not hold: decoder.finalFc" in said and "beyond its bound" in said

    def test_rows_that_are_gone_or_new(self, folder, capsys):
        now = copy.deepcopy(report_of())
        now["rows"][3]["part"] = "another"
        assert verify(folder, rerun=lambda *_: now) == 1
        said = capsys.readouterr().out
        assert "not computed now" in said and "not certified" in said
        assert "2 of 6 rows do not hold: loss, another" in said

    def test_gradients_that_memory_left_out_are_no_failure(self, folder, capsys):
        now = report_of() | {"notes": ["gradients are not compared: that needs 9.0 GiB"]}
        now["settings"] = {"seed": 7, "gradients": False}
        now["rows"] = now["rows"][:3]
        assert verify(folder, "--max-ram", "2GB", rerun=lambda *_: now) == 3
        said = capsys.readouterr().out
        assert said.count("not computed: not enough memory") == 2 and "FAIL" not in said
        assert "that needs 9.0 GiB" in said and "3 of 5 rows are as certified; memory" in said
        del now["rows"][0]
        assert verify(folder, rerun=lambda *_: now) == 1
        assert "1 of 5 rows do not hold: encoder.embed" in capsys.readouterr().out

    def test_json_has_no_nan(self, folder, capsys):
        nan = float("nan")
        assert verify(folder, "--json", rerun=lambda *_: report_of(difference=nan)) == 1
        found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        assert found["comparison"][2]["now"] == "nan"

    def test_without_a_only_files(self, folder, tmp_path, capsys):
        (tmp_path / "a").rename(tmp_path / "moved")
        assert verify(folder) == 3
        assert "only the files were verified" in capsys.readouterr().out
        assert verify(folder, "--a", str(tmp_path / "moved"), rerun=lambda *_: report_of()) == 0

    def test_a_certified_failure_is_none_to_rely_on(self, folder, capsys):
        write_certificate(folder, report_of(difference=1e-3))
        assert verify(folder, "--quick", "--card") == 1
        assert "what is certified is FAIL" in capsys.readouterr().out
        assert not (folder / "PARITY.md").exists()

    def test_how_sides_are_given(self, tmp_path):
        again = {
            "old/place": f"{tmp_path}",
            "hf:old/place": f"hf:{tmp_path}",
            "old/place --from tutorial": f"{tmp_path} --from tutorial",
        }
        assert {given: given_now(given, tmp_path) for given in again} == again
        assert str(local_path("module:dir/file.py:make")) == "dir/file.py"


class TestCard:
    def test_says_what_matters(self, folder, capsys):
        assert verify(folder, "--quick", "--card") == 0
        text = (folder / "PARITY.md").read_text()
        assert text == card(read_certificate(folder))
        for line in (
            "**PASS: same function**",
            "| logits | 1.0e-15 | 1.0e-11 | PASS |",
            "| worst sub-step: encoder layer 2, ffn.fc2 input | 7.0e-13 | 1.0e-11 | PASS |",
            "| worst gradient: decoder.finalFc.weight | 3.0e-14 | 1.0e-10 | PASS |",
            "| float32 B | 5.0e-06 | 1.0e-06 | 1.0e-11 | 100.00% | 99.00% |",
        ):
            assert line in text
        assert str(folder.parent) not in text

    def test_a_failure_comes_first_and_nan_before_all(self, folder):
        report = report_of(difference=float("nan"))
        report["verdict"] = "not the | same\nfunction"
        report["rows"][1] = row("encoder.enc_layers.1.ffn.fc2 input", 5.0)
        write_certificate(folder, report)
        text = card(read_certificate(folder))
        assert "**FAIL" in text and "| worst sub-step: logits | nan | 1.0e-11 | FAIL |" in text
