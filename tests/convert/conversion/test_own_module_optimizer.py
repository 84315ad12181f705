"""The optimizer of a module of the user's own comes back as torch loads it, by the table's file."""

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


@pytest.mark.parametrize("between", ["flax", "torch", None])
def test_it_goes_on_exactly(between, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module, optimizer = trained
    torch.save(module.state_dict(), "weights.pt")
    convert("names", "weights.pt", "--num-heads", 4, "--activation", "gelu", "--output", "own.toml")
    both = {"model": module.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(both, "both.pt")
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
