"""Run folders appear whole or not at all and are never overwritten."""

import pytest
from messages import saying

from training_recipe.files.writing import point_link
from training_recipe.runs.folder import RunFolder
from transformer_spec import UserError


def fill(run):
    run.config.write_text("{}")
    run.settings.write_text("{}")
    run.vocabulary.mkdir()


class TestCreate:
    def test_layout(self, tmp_path):
        run = RunFolder.create(tmp_path / "deep" / "a", fill)
        assert sorted(p.name for p in run.path.iterdir()) == [
            "checkpoints", "config.json", "metrics.jsonl", "settings.json", "vocabulary",
        ]  # fmt: skip
        assert RunFolder.open(run.path).steps() == []

    @pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
    def test_never_overwrites(self, tmp_path, kind):
        path = tmp_path / "a"
        if kind == "folder":
            path.mkdir()
        elif kind == "file":
            path.write_text("mine")
        else:
            path.symlink_to("nowhere")
        with pytest.raises(UserError, match="exists already.*no run"):
            RunFolder.create(path, fill)
        assert [p.name for p in tmp_path.iterdir()] == ["a"]

    def test_a_run_that_is_there_can_be_gone_on_with(self, tmp_path):
        run = RunFolder.create(tmp_path / "a", fill)
        with pytest.raises(UserError, check=saying("no checkpoint", "--resume", "remove")):
            RunFolder.create(run.path, fill)
        run.checkpoint(2).mkdir()
        with pytest.raises(UserError, check=saying("exists already", "--resume")) as error:
            RunFolder.create(run.path, fill)
        assert "remove" not in str(error.value)

    def test_made_by_another_process_meanwhile(self, tmp_path):
        def slow(run):
            fill(run)
            (tmp_path / "a").mkdir()
            (tmp_path / "a" / "theirs").touch()

        with pytest.raises(UserError, match="exists already"):
            RunFolder.create(tmp_path / "a", slow)
        assert [p.name for p in tmp_path.rglob("*")] == ["a", "theirs"]

    def test_nothing_is_left_of_a_failure(self, tmp_path):
        def failing(run):
            fill(run)
            raise OSError("broken")

        with pytest.raises(UserError, match="broken"):
            RunFolder.create(tmp_path / "a", failing)
        assert list(tmp_path.iterdir()) == []


class TestOpen:
    def test_names_what_is_missing(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(UserError, match="no settings.json, vocabulary"):
            RunFolder.open(tmp_path)
        with pytest.raises(UserError, match="no such folder"):
            RunFolder.open(tmp_path / "none")

    def test_steps_are_complete_checkpoints_only(self, tmp_path, monkeypatch):
        run = RunFolder.create(tmp_path / "a", fill)
        for name in ("step_00000010", "step_00000002", ".step_00000030.partial-ab", "set_aside_x"):
            (run.checkpoints / name).mkdir()
        assert run.steps() == [2, 10]
        assert run.checkpoint(10).name == "step_00000010"
        assert run.best_or_newest() == run.checkpoint(10)
        point_link(run.best, run.checkpoint(2))
        assert run.best_or_newest() == run.checkpoint(2)
        monkeypatch.chdir(tmp_path)
        relative = RunFolder(run.path.relative_to(tmp_path))
        assert relative.best_or_newest() == relative.checkpoint(2)  # as it was named

    def test_no_checkpoint_yet(self, tmp_path):
        with pytest.raises(UserError, match="no checkpoint yet"):
            RunFolder.create(tmp_path / "a", fill).best_or_newest()

    def test_leftovers_are_removed(self, tmp_path):
        run = RunFolder.create(tmp_path / "a", fill)
        (run.checkpoints / ".step_00000030.partial-ab").mkdir()
        (run.checkpoints / ".step_00000030.partial-ab" / "weights").touch()
        (run.path / ".settings.json.partial-cd").touch()
        (run.path / ".best.partial-ef").symlink_to("checkpoints/step_00000030")
        before = {run.config, run.settings, run.vocabulary, run.metrics, run.checkpoints}
        assert len(run.remove_leftovers()) == 3
        assert set(run.path.rglob("*")) == before
