"""The optimizer of a module of the user's own: seen, and back as torch loads it, by its table."""

import json
import runpy
from pathlib import Path

import pytest
from convert_cases import convert

torch = pytest.importorskip("torch")

EXAMPLE = runpy.run_path(str(Path(__file__).parents[3] / "examples/your_own_model.py"))
WORDS = torch.arange(4, 34).reshape(3, 10)


def optimizer_of(module):
    """As people divide parameters: matrices, and vectors without decay."""
    parameters = list(module.parameters())
    groups = [[p for p in parameters if (p.ndim > 1) == matrices] for matrices in (True, False)]
    return torch.optim.AdamW(
        [{"params": groups[0], "lr": 3e-3}, {"params": groups[1], "weight_decay": 0.0}]
    )


def learn(module, optimizer) -> list[torch.Tensor]:
    """Two steps; the parameters after them."""
    for _ in range(2):
        optimizer.zero_grad()
        logits = module(WORDS, WORDS)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), WORDS.flatten()).backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.fixture
def trained():
    torch.manual_seed(1)
    module = EXAMPLE["Translator"]()
    optimizer = optimizer_of(module)
    learn(module, optimizer)
    return module, optimizer


@pytest.fixture
def files(trained, tmp_path, monkeypatch):
    """own.toml, and files with an optimizer as loops and Lightning write them, in this folder."""
    monkeypatch.chdir(tmp_path)
    module, optimizer = trained
    weights, state = module.state_dict(), optimizer.state_dict()
    torch.save(weights, "weights.pt")
    convert("names", "weights.pt", "--num-heads", 4, "--activation", "gelu", "--output", "own.toml")
    torch.save({"model": weights, "optimizer": state}, "both.pt")
    torch.save({"state_dict": weights, "optimizer_states": [state]}, "lightning.ckpt")
    torch.save({"state_dict": weights, "optimizer_states": [state, state]}, "two.ckpt")


@pytest.mark.parametrize("between", ["flax", "torch", None])
def test_it_goes_on_exactly(between, trained, files):
    module, optimizer = trained
    if between is None:
        convert("both.pt", "back", "--names", "own.toml", "--to", "names:own.toml")
    else:
        convert("both.pt", "ours", "--names", "own.toml", "--to", between)
        convert("ours", "back", "--to", "names:own.toml")
    again = EXAMPLE["Translator"]()
    again.load_state_dict(torch.load("back/model.pt"))
    its = optimizer_of(again)
    its.load_state_dict(torch.load("back/optimizer.pt", weights_only=True))
    told = [[group["lr"], group["weight_decay"]] for group in its.param_groups]
    assert told == [[3e-3, 1e-2], [1e-3, 0.0]]
    for one, other in zip(learn(again, its), learn(module, optimizer), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("file", ["both.pt", "lightning.ckpt"])
def test_inspect_reads_it_by_the_table(file, files, capsys):
    capsys.readouterr()
    convert("inspect", file, "--names", "own.toml")
    said = capsys.readouterr().out
    assert "family     own\n" in said and "optimizer  moments after 2 steps" in said
    assert "hidden_dim=32" in said


@pytest.mark.parametrize("file", ["both.pt", "lightning.ckpt", "two.ckpt"])
def test_inspect_sees_it_where_the_family_is_unknown(file, files, capsys):
    capsys.readouterr()
    convert("inspect", file)
    said = capsys.readouterr().out
    assert "family     not known" in said and "starts fresh" not in said
    assert "optimizer  there is one, not read while the family is not known" in said
    assert ("has those of several" in said) == (file == "two.ckpt")
    convert("inspect", file, "--json")
    assert json.loads(capsys.readouterr().out)["unread"].startswith("there is one")
    convert("inspect", file, "--no-optimizer")
    assert "optimizer  none" in capsys.readouterr().out


def test_inspect_tells_of_a_table_that_does_not_fit(files, capsys):
    capsys.readouterr()
    convert("inspect", "both.pt", "--names", "aladdinpersson")
    said = capsys.readouterr().out
    assert "family     aladdinpersson" in said
    assert "not as the table aladdinpersson says" in said
    assert "optimizer  there is one, not read while the config is not known" in said
