"""What is asked of an installation before a release, each with an installation that fails it."""

import subprocess
import sys
import venv

import pytest
from page_blocks import DOCS

from release.alone import OTHER, refused
from release.dependencies import PACKAGES
from release.environments import Environment, modules_alone
from release.findings import CommandFailed
from release.page import page_runs, shortened, steps

PAGE = """# A page

```sh
pip install 'a.whl[all]'
cd somewhere
twinformer train --name first --backend jax  # a comment
echo 3 > three
```

```python
three = int(open("three").read())
```

```text
not run
```

```python
import twin
assert three == twin.THREE
```
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment without any library; its command twinformer prints its words."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    command = folder / "bin/twinformer"
    command.write_text("#!/bin/sh\necho $* > words\necho 'THREE = 3' > twin.py\n")
    command.chmod(0o755)
    return folder


@pytest.fixture
def page(tmp_path):
    (tmp_path / "page.md").write_text(PAGE)
    return tmp_path / "page.md"


def test_modules_that_another_library_has_too():
    ours = {name: ["twinformer"] for name in PACKAGES}
    assert not modules_alone(ours | {"numpy": ["numpy"]}, PACKAGES).faults
    told = modules_alone(ours | {"convert": ["twinformer", "convert"]}, PACKAGES).faults
    assert told == ["convert belongs to convert, twinformer"]
    del ours["parity"]
    assert modules_alone(ours, PACKAGES).faults == ["parity belongs to nothing"]


def test_steps_of_a_page(page):
    assert steps(page) == [
        ("sh", 3, "twinformer train --name first --backend jax"),
        ("sh", 3, "echo 3 > three"),
        ("python", 10, 'three = int(open("three").read())\n'),
        ("python", 18, "import twin\nassert three == twin.THREE\n"),
    ]
    assert steps(page, 30)[0][2] == "twinformer train --name first --backend jax --steps 30"
    assert shortened("twinformer train --steps 5", 30) == "twinformer train --steps 5"


def test_a_page_is_run_in_an_empty_folder_in_one_namespace(environment, page, tmp_path):
    made = Environment(environment, tmp_path / "work")
    assert page_runs(made, steps(page)).said == "2 commands, 2 blocks of Python"
    assert (tmp_path / "work/words").read_text() == "train --name first --backend jax\n"
    assert page_runs(made, steps(page)).faults == [f"{made.work} is not empty"]
    assert page_runs(made, []).faults


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("echo 3 > three", "exit 5", "line 3: exit 5: exit status 5"),
        ("twin.THREE", "4", "line 20, in <module>"),
    ],
)
def test_a_step_that_fails_is_named(environment, page, tmp_path, old, new, said):
    page.write_text(PAGE.replace(old, new))
    with pytest.raises(CommandFailed, match=said):
        page_runs(Environment(environment, tmp_path / "work"), steps(page))


def test_the_checkout_is_out_of_sight(environment, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    made = Environment(environment, tmp_path / "work")
    with pytest.raises(CommandFailed, match="No module named 'convert'"):
        made.run("python", "-c", "import convert")
    assert made.run("python", "-c", "import sys; print(sys.prefix)").strip() == str(environment)


def test_what_is_installed_is_told():
    here = [sys.executable, "-c", "from release.environments import INSPECTION; exec(INSPECTION)"]
    said = subprocess.run(here, capture_output=True, text=True, check=True, cwd=DOCS.parent).stdout
    assert '"name": "numpy"' in said and '"numpy": ["numpy"]' in said


def test_the_other_framework_has_to_be_refused_by_name():
    assert OTHER == {"jax": "torch", "torch": "jax"}
    assert not refused("this needs torch: pip install ...", "torch").faults
    assert refused(None, "torch").faults
    assert refused("this needs something", "torch").faults
