"""Checks of the repository before a release, each with something that it has to find."""

import subprocess

import pytest

from release.findings import Finding, Row, judge, output_of
from release.tree import agreeing, cited, committed, committed_sizes, large, sections, versions

CHANGELOG = "# Changelog\n\n## Unreleased\n\n## 0.2.0 - 2026-11-30\n\nText.\n\n## 0.1.0\n\nFirst.\n"
CITATION = "cff-version: 1.2.0\nversion: 0.2.0\ndate-released: 2026-11-30\nlicense: Apache-2.0\n"
PROJECT = '[project]\nname = "a"\nversion = "0.2.0"\nlicense = "Apache-2.0"\n'


@pytest.fixture
def repository(tmp_path):
    def git(*words: str) -> None:
        identity = ["-c", "user.name=n", "-c", "user.email=n@localhost", "-c", "core.hooksPath=/-"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "a file.txt").write_text("12345")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    return tmp_path, git


def test_what_is_not_committed(repository):
    place, _ = repository
    assert not committed(place).faults
    (place / "new").write_text("")
    assert committed(place).faults == ["not committed: ?? new"]


def test_a_large_file_is_found_also_where_it_was_removed_again(repository):
    place, git = repository
    (place / "large.bin").write_bytes(b"0" * 1_000_001)
    git("add", ".")
    git("commit", "-q", "-m", "two")
    git("rm", "-q", "large.bin")
    git("commit", "-q", "-m", "three")
    sizes = dict(committed_sizes(place))
    assert sizes == {"a file.txt": 5, "large.bin": 1_000_001}
    assert large(sizes.items(), "git").faults == ["large.bin has 1,000,001 bytes in git"]
    assert not large([("a", 1_000_000)], "git").faults


def test_sections_of_a_changelog():
    assert sections(CHANGELOG) == {
        "Unreleased": (None, ""),
        "0.2.0": ("2026-11-30", "Text."),
        "0.1.0": (None, "First."),
    }


def test_one_version_in_three_files(tmp_path):
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "CITATION.cff").write_text(CITATION)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    assert versions(tmp_path) == Finding([], "0.2.0 of 2026-11-30")


@pytest.mark.parametrize(
    ("version", "changelog", "citation", "fault"),
    [
        ("0.2.1", CHANGELOG, CITATION.replace("0.2.0", "0.2.1"), "the newest of CHANGELOG.md"),
        ("0.2.0", CHANGELOG.replace(" - 2026-11-30", ""), CITATION, "no date or no text"),
        ("0.2.0", CHANGELOG.replace("Text.", ""), CITATION, "no date or no text"),
        ("0.2.0", CHANGELOG.replace("Unreleased", "Unreleased\n\nMore."), CITATION, "Unreleased"),
        ("0.2.0", CHANGELOG, CITATION.replace("11-30", "11-29"), "date-released 2026-11-29"),
        ("0.2.0", CHANGELOG, CITATION.replace("0.2.0", "0.1.0"), "version 0.1.0"),
        ("0.2.0", CHANGELOG, CITATION.replace("Apache-2.0", "MIT"), "license MIT"),
        ("0.2.0", CHANGELOG, CITATION.replace("license: Apache-2.0\n", ""), "license None"),
    ],
)
def test_versions_that_differ(version, changelog, citation, fault):
    told = agreeing(version, "Apache-2.0", sections(changelog), citation)
    assert any(fault in line for line in told.faults), told.faults


def test_a_value_of_the_citation():
    assert cited('cff-version: 1.2.0\nversion: "0.2"\n', "version") == "0.2"
    assert cited("cff-version: 1.2.0\n", "version") is None


def test_what_a_check_raises_is_its_fault():
    def check() -> Finding:
        raise ValueError("no")

    row = judge("name", check)
    assert not row.passed and row.finding.faults == ["ValueError: no"]
    assert row.lines(6)[0].startswith("name    FAIL") and row.lines(6)[1] == "    ValueError: no"
    assert Row("name", Finding(), 0).passed


def test_many_faults_are_shown_by_the_first():
    lines = Row("name", Finding([str(n) for n in range(20)]), 0).lines(4)
    assert len(lines) == 10 and lines[-1] == "    and 12 more"


def test_a_program_that_fails_says_its_last_lines():
    with pytest.raises(Exception, match="(?s): 3\nwhy"):
        output_of("bash", "-c", "echo why; exit 3")
