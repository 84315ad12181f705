"""How many cores there are: those of the process, and what a container pays for."""

import pytest

from transformer_spec.cores import cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8), raising=False)


@pytest.fixture
def system(tmp_path):
    def write(**files):
        for name, text in files.items():
            path = tmp_path / "sys/fs/cgroup" / name.replace("__", "/").replace("_max", ".max")
            path = path.with_name(path.name.replace("cfs", "cpu.cfs"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("limit", "count"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1)]
    + [("9000000 100000", 8), ("nonsense", 8)],
)
def test_a_container_bounds_it(system, limit, count):
    assert cores(system(cpu_max=limit + "\n")) == count


@pytest.mark.parametrize(("quota", "count"), [("300000", 3), ("-1", 8)])
def test_an_older_container_too(system, quota, count):
    files = {"cpu__cfs_quota_us": quota + "\n", "cpu__cfs_period_us": "100000\n"}
    assert cores(system(**files)) == count


def test_no_container(tmp_path, monkeypatch):
    assert cores(tmp_path) == 8
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert cores(tmp_path) == 1
