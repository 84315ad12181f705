"""A command that starts itself once more, in the same process and with the same arguments."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from training_recipe.huge_pages import VARIABLE, WANTED

ROOT = Path(__file__).resolve().parents[1]
CODE = """
import os, sys
sys.path.insert(0, {root!r})
from training_recipe.huge_pages import restart_with_huge_pages
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], flush=True)
restart_with_huge_pages()
print(sys.stdin.read(), sys.flags.optimize)
"""


def lines(environment: dict[str, str]) -> list[str]:
    command = [sys.executable, "-O", "-c", CODE.format(root=str(ROOT)), "a b", "--c"]
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE} | environment
    done = subprocess.run(
        command, env=environment, input="kept", capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_once_more_in_the_same_process():
    before, after, rest = lines({})
    process = before.split()[0]
    assert before == f"{process} None ['a b', '--c']"
    assert after == f"{process} {WANTED} ['a b', '--c']"
    assert rest == "kept 1"


def test_what_the_user_chose_stays():
    (only, _) = lines({VARIABLE: "glibc.malloc.tcache_count=7"})
    assert "glibc.malloc.tcache_count=7" in only
