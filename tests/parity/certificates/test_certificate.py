"""Certificates: what they hold, every way in which a folder can differ, and the command."""

import hashlib
import json
import sys
from dataclasses import replace

import pytest
from certificate_cases import edit, report_of, verify
from messages import says

from parity.certificates.card import card
from parity.certificates.certificate import read_certificate, write_certificate
from parity.certificates.checksums import read_sums
from parity.certificates.verification import given_now
from parity.comparison.report import Row
from parity.comparison.settings import Settings
from parity.sides.given import local_path
from transformer_spec import UserError


class TestWriting:
    def test_holds_the_report_and_every_file(self, folder, tmp_path):
        held, sums = read_certificate(folder), read_sums(folder / "SHA256SUMS")
        data = (folder / "model.safetensors").read_bytes()
        assert sums["model.safetensors"] == hashlib.sha256(data).hexdigest()
        names = ["best/.zarray", "config.json", "model.safetensors", "orbax/d/.zarray"]
        assert list(sums) == [*names, "certificate.json"]
        assert held.report == report_of(tmp_path / "a")
        assert held.versions["python"] == sys.version.split()[0] and held.versions["numpy"]
        assert held.platform["devices"] == dict.fromkeys("ab", held.platform["processor"])
        assert [p.name for p in folder.iterdir() if "partial" in p.name] == []

    def test_written_again_it_covers_the_same_files(self, folder):
        before = read_sums(folder / "SHA256SUMS")
        (folder / "PARITY.md").write_text("ours")
        (folder / ".certificate.json.partial-0a1b2c3d").write_text("left by a killed process")
        write_certificate(folder, report_of())
        assert read_sums(folder / "SHA256SUMS").keys() == before.keys()

    def test_numbers_that_json_has_not_are_kept(self, folder):
        write_certificate(folder, report_of(difference=float("nan")))
        report = read_certificate(folder).report
        assert str(report.rows[2].float64) == "nan" and not report.same

    def test_needs_a_folder(self, tmp_path):
        (tmp_path / "model.pt").write_text("")
        for name, said in (("model.pt", "is no folder"), ("none", "does not exist")):
            with pytest.raises(UserError, match=said):
                write_certificate(tmp_path / name, report_of())


class TestFiles:
    def test_as_certified(self, folder, capsys):
        (folder / "README.md").write_text("the page")
        assert verify(folder, "--quick") == 0
        assert "all 5 files are as certified" in capsys.readouterr().out

    def test_all_differences_are_one_message(self, folder, capsys):
        with (folder / "model.safetensors").open("r+b") as file:
            file.seek(2_000_000)
            file.write(b"1234567")
        (folder / "config.json").unlink()
        (folder / "orbax" / "new\nline").write_text("")
        assert verify(folder) == 1
        said = capsys.readouterr().out
        for line in ("missing  config.json", "extra    'orbax/new\\nline'"):
            assert line in said
        assert "FAIL" in said and "changed  model.safetensors" in said

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
            lambda c: c.update(date="2020-01-01"),
        ],
    )
    def test_edited(self, folder, change, capsys):
        edit(folder, change)
        assert verify(folder, "--quick") == 1
        assert "changed  certificate.json" in capsys.readouterr().out

    @pytest.mark.parametrize("text", [None, "{", '{"a": 1e999}', "[" * 100_000, "[]"])
    def test_unusable(self, folder, text, capsys):
        path = folder / "certificate.json"
        path.write_text(text) if text else path.unlink()
        assert verify(folder) == 2
        error = capsys.readouterr().err
        assert str(folder) in error and error.startswith("error: ")
        assert len(error.splitlines()) == 1

    def test_without_its_checksums(self, folder, capsys):
        (folder / "SHA256SUMS").unlink()
        assert verify(folder) == 2
        assert "SHA256SUMS cannot be read" in capsys.readouterr().err

    @pytest.mark.parametrize("version", [1, 3, "2", 2.0])
    def test_another_format_version(self, folder, version, capsys):
        edit(folder, lambda c: c.update(format_version=version))
        assert verify(folder) == 2
        assert f"format_version {version!r}" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "damage",
        [
            lambda c: c.update(versions=None),
            lambda c: c.pop("report"),
            lambda c: c["report"]["rows"][0].pop("bound"),
            lambda c: c["report"].update(rows=3),
            lambda c: c["report"]["settings"].update(unknown=1),
        ],
    )
    def test_damaged(self, folder, damage, capsys):
        edit(folder, damage, honest=True)
        assert verify(folder) == 2
        assert "certificate.json" in capsys.readouterr().err


class TestComparison:
    def test_same_arguments_and_rows(self, folder, tmp_path, capsys):
        asked = []

        def rerun(*given):
            asked.append(given)
            return report_of(difference=9e-12)

        assert verify(folder, rerun=rerun) == 0
        assert asked == [(str(tmp_path / "a"), str(folder), Settings(seed=7))]
        said = capsys.readouterr().out
        assert "all 5 rows" in said and len(said.splitlines()) == 3
        assert verify(folder, "--full", rerun=rerun) == 0
        assert capsys.readouterr().out.count("within its bound") == 5

    @pytest.mark.parametrize("wrong", [2e-11, float("nan")])
    def test_a_row_beyond_its_bound(self, folder, wrong, capsys):
        assert verify(folder, rerun=lambda *_: report_of(difference=wrong)) == 1
        said = capsys.readouterr().out
        says(said, "1 of 5 rows", "decoder.finalFc")
        assert "beyond its bound" in said

    def test_rows_that_are_gone_or_new(self, folder, capsys):
        now = report_of()
        another = replace(now.rows[3], part="another")
        now = replace(now, rows=(*now.rows[:3], another, now.rows[4]))
        assert verify(folder, rerun=lambda *_: now) == 1
        said = capsys.readouterr().out
        assert "not computed now" in said and "not certified" in said
        says(said, "2 of 6 rows", "loss, another")

    def test_gradients_that_memory_left_out_are_no_failure(self, folder, capsys):
        now = report_of()
        less = Settings(seed=7, gradients=False)
        now = replace(now, settings=less, rows=now.rows[:3], notes=("that needs 9.0 GiB",))
        assert verify(folder, "--max-ram", "2GB", rerun=lambda *_: now) == 3
        said = capsys.readouterr().out
        assert said.count("not computed: not enough memory") == 2 and "FAIL" not in said
        assert "that needs 9.0 GiB" in said
        says(said, "3 of 5 rows", "as certified", "memory")
        now = replace(now, rows=now.rows[1:])
        assert verify(folder, rerun=lambda *_: now) == 1
        says(capsys.readouterr().out, "1 of 5 rows", "encoder.embed")

    def test_json_has_no_nan(self, folder, capsys):
        nan = float("nan")
        assert verify(folder, "--json", rerun=lambda *_: report_of(difference=nan)) == 1
        found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        assert found["rows"][2]["now"] == "nan"

    def test_without_a_only_files(self, folder, tmp_path, capsys):
        (tmp_path / "a").rename(tmp_path / "moved")
        assert verify(folder) == 3
        assert "only the files were verified" in capsys.readouterr().out
        assert verify(folder, "--a", str(tmp_path / "moved"), rerun=lambda *_: report_of()) == 0

    def test_code_that_a_certificate_names_is_run_where_the_user_names_it(
        self, folder, tmp_path, capsys
    ):
        """It may have come with the folder."""
        a = f"module:{tmp_path / 'its maker.py'}:make"
        (tmp_path / "its maker.py").write_text("raise SystemExit('run')")
        write_certificate(folder, report_of(a))
        assert verify(folder) == 3
        said = capsys.readouterr().out
        says(said, "only the files were verified", f"--a '{a}' to run it")
        assert len(said.splitlines()) == 3 and "all 1 files of A are as certified" in said
        assert verify(folder, "--a", a, rerun=lambda *_: report_of(a)) == 0

    def test_a_certified_failure_is_none_to_rely_on(self, folder, capsys):
        write_certificate(folder, report_of(difference=1e-3))
        assert verify(folder, "--quick", "--card") == 1
        assert "what is certified is no equality" in capsys.readouterr().out
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
        for parts in (
            ("**PASS: same function",),
            ("| logits | 1.0e-15 |", "1.0e-11", "PASS"),
            ("worst sub-step: encoder layer 2, ffn.fc2 input | 7.0e-13 |", "1.0e-11", "PASS"),
            ("worst gradient: decoder.finalFc.weight | 3.0e-14 |", "1.0e-10", "PASS"),
            ("float32 B | 5.0e-06 | 1.0e-06 | 1.0e-11 |", "100.00%", "99.00%"),
        ):
            says(text, *parts)
        assert str(folder.parent) not in text

    def test_a_failure_comes_first_and_nan_before_all(self, folder):
        report = report_of(difference=float("nan"))
        step = Row("encoder.enc_layers.1.ffn.fc2 input", 5.0, 1e-11)
        report = replace(report, rows=(report.rows[0], step, *report.rows[2:]))
        write_certificate(folder, report)
        text = card(read_certificate(folder))
        assert "**FAIL" in text
        says(text, "worst sub-step: logits | nan |", "1.0e-11", "FAIL")
