"""What several processes do as one run: start, stop, save, and fail together."""

import errno
from types import SimpleNamespace

import pytest
from fake_processes import InStep, here, side_by_side
from messages import says
from numpy_backend import NumpyBackend
from training_cases import SMALL, assert_same_run, flags, metrics

from training_recipe.backend import StepResult
from training_recipe.distributed.mesh import Mesh
from training_recipe.distributed.processes import World
from training_recipe.options.flags import parse
from transformer_spec import UserError
from twinformer.training import agreement, beginning, checkpoints, loop, starting
from twinformer.training.joining import begun_or_new
from twinformer.training.loop import train


@pytest.fixture
def place(place, quick, monkeypatch):
    monkeypatch.setattr(agreement, "LOOKS", 2)
    return place


def work(arguments, own=(), after_step=lambda step: None):
    """A function: train in one process of a world, ``own`` arguments in the second alone."""

    def run(world: World):
        def make_backend(*given):
            backend = NumpyBackend(*given)
            step = backend.train_step

            def train_step(batches, number, rate):
                result = step(batches, number, rate)
                after_step(number)
                return result

            backend.train_step = train_step
            return InStep(backend, world.processes)

        more = list(own) if world.processes.index == 1 else []
        request = begun_or_new(parse([*arguments, *flags("numpy"), *more]))
        return train(request, "torch", make_backend, world)

    return run


def errors(found, count=2) -> list[str]:
    """What was said in each process, all of which ended with a mistake."""
    assert len(found) == count and all(isinstance(each, UserError) for each in found), found
    return [str(each) for each in found]


def interrupted_at(monkeypatch, step: int, index: int = 1, number: int = 15):
    """A hook: one process hears a signal after a step."""
    heard = {}
    made = loop.Interrupts

    def interrupts(*given):
        heard[here()] = made(*given)
        return heard[here()]

    monkeypatch.setattr(loop, "Interrupts", interrupts)

    def after_step(done: int) -> None:
        if done == step and here() == index:
            heard[index].number = number

    return after_step


NOTHING_LEFT = ["words.tsv"]


def left(place) -> list[str]:
    """Every file and folder, hidden ones too."""
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*"))


class TestWholeRuns:
    @pytest.mark.parametrize("count", [2, 3])
    def test_the_run_of_one_process(self, place, whole, count, capsys):
        expected = whole("numpy")
        capsys.readouterr()
        found = side_by_side(count, work([*SMALL, "--name", "a"]))
        assert len({(each.steps, each.status, tuple(each.scores.items())) for each in found}) == 1
        assert_same_run(place / "runs/a", expected)
        data = str(expected.parents[1])
        for name in ("config.json", "settings.json", "vocabulary/source.json"):
            written = (place / "runs/a" / name).read_text()
            assert written == (expected / name).read_text().replace(data, str(place))
        printed = capsys.readouterr().out
        assert printed.count("test of the checkpoint") == printed.count("run runs/a: ") == 1
        says(printed, f"{count} processes, mesh data={count},fsdp=1", "rows are padding")
        says(printed, "step 3/12", "tokens/s (", "a device)")

    @pytest.mark.parametrize("more", [["--average", "2"], ["--save-every", "1", "--keep", "1"]])
    def test_other_ends(self, place, more):
        side_by_side(1, work([*SMALL, *more, "--name", "one"]))
        side_by_side(2, work([*SMALL, *more, "--name", "two"]))
        assert metrics(place / "runs/two") == metrics(place / "runs/one")
        names = [sorted(p.name for p in (place / f"runs/{n}").rglob("*")) for n in ("one", "two")]
        events = [[n for n in each if not n.startswith("events")] for each in names]
        assert events[0] == events[1]

    def test_saves_by_the_clock_once(self, place, monkeypatch):
        """A step takes 20 seconds in the first process; the other's clock stands still."""
        done = [0]
        clock = SimpleNamespace(monotonic=lambda: 20.0 * done[-1] if here() == 0 else 0.0)
        monkeypatch.setattr(loop, "time", clock)
        rare = ["--save-every", "100", "--evaluate-every", "100", "--keep", "100"]
        given = [*SMALL, *rare, "--save-minutes", "1", "--name", "a"]
        hook = lambda step: done.append(step) if here() == 0 else None  # noqa: E731
        side_by_side(2, work(given, after_step=hook))
        kept = sorted(path.name for path in (place / "runs/a/checkpoints").iterdir())
        assert [int(name.removeprefix("step_")) for name in kept] == [4, 8, 12]

    def test_a_model_that_came(self, place):
        side_by_side(1, work([*SMALL, "--name", "first"]))
        begun = ["--init", "runs/first", "--data", "words.tsv", "--columns", "word,sound"]
        begun += ["--steps", "4", "--device", "cpu"]
        side_by_side(1, work([*begun, "--name", "one"]))
        side_by_side(2, work([*begun, "--name", "two"]))
        assert_same_run(place / "runs/two", place / "runs/one")
        assert (place / "runs/two/checkpoints/step_00000000").is_dir()


class TestStopping:
    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("step", [3, 5, 7])
    @pytest.mark.parametrize("index", [0, 1])
    def test_a_signal_to_one_stops_all_saved(self, place, whole, monkeypatch, step, index):
        expected = whole("numpy")  # before a hook is in its way
        hook = interrupted_at(monkeypatch, step, index)
        found = side_by_side(2, work([*SMALL, "--name", "a"], after_step=hook))
        assert [each.status for each in found] == [143, 143]
        assert found[0].steps == found[1].steps in (step, step + 1)
        side_by_side(2, work(["--resume", "runs/a"]))
        assert_same_run(place / "runs/a", expected)

    def test_resumed_by_another_number_of_processes(self, place, whole, monkeypatch):
        expected = whole("numpy")
        hook = interrupted_at(monkeypatch, 6)
        side_by_side(3, work([*SMALL, "--name", "a"], after_step=hook))
        side_by_side(1, work(["--resume", "runs/a"]))
        assert_same_run(place / "runs/a", expected)

    def test_a_signal_while_it_judges(self, place, monkeypatch):
        heard = interrupted_at(monkeypatch, 1)
        decode = NumpyBackend.decode

        def slow(self, *given):
            heard(1)
            return decode(self, *given)

        monkeypatch.setattr(NumpyBackend, "decode", slow)
        few = ["--batch-tokens", "16", "--valid-examples", "5"]
        found = side_by_side(2, work([*SMALL, *few, "--name", "a"]))
        assert {(each.status, each.steps) for each in found} <= {(143, 5), (143, 6)}
        assert len({each.steps for each in found}) == 1

    def test_divergence_is_the_same_error(self, place, monkeypatch):
        nan = StepResult(float("nan"), 1, float("nan"))
        monkeypatch.setattr(NumpyBackend, "train_step", lambda *_: nan)
        one, other = errors(side_by_side(2, work([*SMALL, "--name", "a"])))
        assert one == other and one.startswith("training diverged at step 1 ")


def fails(what, index: int, error: Exception):
    """``what``, but it fails in one process."""

    def call(*given, **named):
        if here() == index:
            raise error
        return what(*given, **named)

    return call


class TestFaults:
    def test_of_the_data_in_the_first(self, place):
        gone = [*SMALL, "--name", "a", "--data", "gone.tsv"]
        one, other = errors(side_by_side(2, work(gone)))
        assert "gone.tsv" in one and other == f"process 0 of 2: {one}"
        assert left(place) == NOTHING_LEFT

    @pytest.mark.parametrize(
        ("holder", "where", "index"),
        [
            (starting, "prepare_from", 1),  # what the first has read, the others read again
            *((starting, "check_fits", index) for index in (0, 1)),
            *((beginning, "first_state", index) for index in (0, 1)),
        ],
    )
    def test_of_either_before_it_begins(self, place, monkeypatch, holder, where, index):
        bad = fails(getattr(holder, where), index, UserError("something is wrong"))
        monkeypatch.setattr(holder, where, bad)
        said = errors(side_by_side(2, work([*SMALL, "--name", "a"])))
        assert said[index] == "something is wrong"
        assert said[1 - index] == f"process {index} of 2: something is wrong"
        assert left(place) == NOTHING_LEFT

    def test_a_folder_that_is_not_shared(self, place, monkeypatch):
        seen = agreement.os.path.lexists
        blind = SimpleNamespace(path=SimpleNamespace(lexists=lambda p: here() == 0 and seen(p)))
        monkeypatch.setattr(agreement, "os", blind)
        said = errors(side_by_side(2, work([*SMALL, "--name", "a"])))
        says(said[1], "run folder", "not on a disk that all processes share", "--out")
        assert said[0] == f"process 1 of 2: {said[1]}"
        assert left(place) == NOTHING_LEFT

    def test_a_folder_that_is_not_shared_any_more(self, place, monkeypatch):
        side_by_side(1, work([*SMALL, "--name", "a"]))
        before = left(place)
        seen = agreement.os.path.lexists
        blind = SimpleNamespace(path=SimpleNamespace(lexists=lambda p: here() == 0 and seen(p)))
        monkeypatch.setattr(agreement, "os", blind)
        said = errors(side_by_side(2, work(["--resume", "runs/a"])))
        says(said[0], "process 1 of 2", "not on a disk that all processes share")
        assert left(place) == before

    @pytest.mark.parametrize(
        ("own", "named"),
        [(["--seed", "7"], "--seed (7 and None)"), (["--dropout", "0"], "--dropout (0.0 and 0.2)")],
    )
    def test_other_settings(self, place, own, named):
        said = errors(side_by_side(2, work([*SMALL, "--name", "a"], own)))
        assert said[0] == said[1]
        says(said[0], "process 1 of 2", "process 0", named, "same command")
        assert left(place) == NOTHING_LEFT

    def test_other_versions(self, place, monkeypatch):
        versions = agreement.library_versions
        other = lambda: versions() | ({"numpy": "1.0"} if here() else {})  # noqa: E731
        monkeypatch.setattr(agreement, "library_versions", other)
        said = errors(side_by_side(2, work([*SMALL, "--name", "a"])))
        says(said[0], "numpy ('1.0' and ", "same versions")

    def test_other_meshes(self, place):
        def run(world: World):
            mesh = Mesh(data=2) if world.processes.first else Mesh(fsdp=2)
            return work([*SMALL, "--name", "a"])(World(world.processes, mesh))

        says(errors(side_by_side(2, run))[1], "the mesh ('data=1,fsdp=2' and 'data=2,fsdp=1')")

    @pytest.mark.parametrize("resumed", [False, True])
    def test_other_data(self, place, monkeypatch, resumed):
        side_by_side(1, work([*SMALL, "--name", "b"]))
        before = left(place)
        reading = "prepare_again" if resumed else "prepare_from"
        read = getattr(starting, reading)

        def prepare(*given):
            prepared = read(*given)
            if here() == 1:
                object.__setattr__(prepared, "judged_fingerprint", "other")
            return prepared

        monkeypatch.setattr(starting, reading, prepare)
        arguments = ["--resume", "runs/b"] if resumed else [*SMALL, "--name", "a"]
        said = errors(side_by_side(2, work(arguments)))
        assert said[0] == said[1]
        says(said[0], "the data of process 1 of 2", "pairs to validate and test by ('other'")
        assert left(place) == before

    @pytest.mark.parametrize("begun", [[], ["--init", "runs/b"]], ids=["drawn", "given"])
    def test_other_weights(self, place, monkeypatch, begun):
        side_by_side(1, work([*SMALL, "--name", "b"]))
        before, read = left(place), beginning.Beginning.state

        def state(self):
            found = read(self).read()
            if here() == 1:
                found.weights["decoder.finalFc.bias"][0] += 1
            return found

        monkeypatch.setattr(beginning.Beginning, "state", state)
        data = ["--data", "words.tsv", "--columns", "word,sound", "--steps", "4", "--device", "cpu"]
        arguments = [*begun, *data] if begun else SMALL
        said = errors(side_by_side(2, work([*arguments, "--name", "a"])))
        assert said[0] == said[1]
        says(said[0], "the weights to begin with of process 1 of 2 differ", "the same files")
        assert left(place) == before

    def test_fewer_rows_than_devices(self, place):
        few = [*SMALL, "--name", "a", "--batch-tokens", "9", "--batch-shapes", "1"]
        said = errors(side_by_side(2, work(few)))
        says(said[0], "batches have at most 1 rows", "2 devices", "raise --batch-tokens")
        assert left(place) == NOTHING_LEFT

    def test_fewer_rows_than_devices_in_some_batches(self, place, capsys):
        three = [*SMALL, "--name", "a", "--batch-tokens", "16", "--steps", "1"]
        assert [each.steps for each in side_by_side(3, work(three))] == [1, 1, 1]
        says(capsys.readouterr().out, "note: some batches have 2 rows for 3 devices")

    def test_a_run_in_use(self, place, monkeypatch):
        side_by_side(1, work([*SMALL, "--name", "a"]))
        from training_recipe.runs.folder import RunFolder
        from training_recipe.runs.lock import locked

        with locked(RunFolder(place / "runs/a")):
            said = errors(side_by_side(2, work(["--resume", "runs/a"])))
        says(said[1], "process 0 of 2", "trained by another process")


class TestFullDisks:
    @pytest.mark.parametrize("step", [4, 8])
    def test_at_the_first_is_told_to_all(self, place, whole, monkeypatch, step):
        seal = checkpoints.seal

        def full(folder, progress):
            if progress.step == step:
                raise OSError(errno.ENOSPC, "No space left on device")
            seal(folder, progress)

        monkeypatch.setattr(checkpoints, "seal", full)
        said = errors(side_by_side(2, work([*SMALL, "--name", "a"])))
        for each in said:
            says(each, f"cannot save step_{step:08}", "the disk is full", "--resume runs/a")
        assert not list((place / "runs/a").rglob(".*partial*"))
        monkeypatch.setattr(checkpoints, "seal", seal)
        side_by_side(2, work(["--resume", "runs/a"]))
        assert_same_run(place / "runs/a", whole("numpy"))

    @pytest.mark.parametrize("part", ["write", "sync"])
    def test_of_metrics_too(self, place, monkeypatch, part):
        def full(self, *given):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(loop.Metrics, part, full)
        said = errors(side_by_side(2, work([*SMALL, "--name", "a"])))
        assert all("the disk is full" in each for each in said)

    def test_while_a_state_is_written(self, place, monkeypatch):
        from twinformer.training import states

        def full(folder, state):
            next(iter(state.weights.values()))
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(states, "WRITERS", {"torch": full})
        said = errors(side_by_side(2, work([*SMALL, "--name", "a"])))
        assert all("cannot save step_00000004: the disk is full" in each for each in said)


class TestResumeOrStart:
    AGAIN = [*SMALL, "--resume-or-start", "a"]

    def test_the_same_command_until_it_is_done(self, place, whole, monkeypatch):
        (place / "runs").mkdir()
        (place / "runs/.a.partial-1-00000000").mkdir()  # half-begun
        for step in (3, 7):
            hook = interrupted_at(monkeypatch, step)
            found = side_by_side(2, work(self.AGAIN, after_step=hook))
            assert [each.status for each in found] == [143, 143]
        assert side_by_side(2, work(self.AGAIN))[1].status == 0
        assert_same_run(place / "runs/a", whole("numpy"))

    def test_other_settings_are_named(self, place):
        side_by_side(1, work(self.AGAIN))
        said = errors(side_by_side(1, work([*self.AGAIN, "--hidden-dim", "16"])), 1)
        says(said[0], "--hidden-dim 16 differs from the run's 8")
        said = errors(side_by_side(1, work([*self.AGAIN, "--preset", "small"])), 1)
        says(said[0], "--schedule cosine differs from the run's linear")

    def test_of_a_model_that_came(self, place):
        side_by_side(1, work([*SMALL, "--name", "first"]))
        again = ["--init", "runs/first", "--data", "words.tsv", "--columns", "word,sound"]
        again += ["--steps", "4", "--device", "cpu", "--resume-or-start", "a"]
        for _ in range(2):
            assert side_by_side(1, work(again))[0].steps == 4
        again[1] = "runs/a"
        said = errors(side_by_side(1, work(again)), 1)
        says(said[0], "runs/a began with --init", "not runs/a")
