"""The moments of torch.optim get the names of their parameters, or an error says why not."""

import numpy as np
import pytest
import torch
from messages import saying, says

from convert.checkpoints.optimizers.torch_states import is_optimizer_state, name_state, state_dict
from transformer_spec import UserError


class Model(torch.nn.Module):
    """Parameters of equal and of different shapes, one of them tied."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(7, 4)
        self.fc1, self.fc2 = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.norm = torch.nn.LayerNorm(4)
        self.out = torch.nn.Linear(4, 7)
        self.out.weight = self.embedding.weight

    def forward(self, tokens):
        states = self.norm(self.fc2(self.fc1(self.embedding(tokens)).relu()))
        return self.out(states).square().sum()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


def trained(model, groups, steps=3, **options):
    optimizer = torch.optim.AdamW(groups, lr=1e-2, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.arange(7)).backward()
        optimizer.step()
    return optimizer


def shapes_of(model):
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def assert_named(found, model, optimizer, steps=3):
    assert found.count == steps
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        assert torch.equal(found.first[name], state["exp_avg"]), name
        assert torch.equal(found.second[name], state["exp_avg_sq"]), name
    assert found.first.keys() == shapes_of(model).keys()


def divided(model, belongs):
    inside = [p for n, p in model.named_parameters() if belongs(n, p)]
    outside = [p for n, p in model.named_parameters() if not belongs(n, p)]
    return [{"params": inside, "weight_decay": 0.1}, {"params": outside, "weight_decay": 0.0}]


DIVISIONS = {
    "matrices": lambda n, p: p.ndim > 1,
    "vectors first": lambda n, p: p.ndim == 1,
    "no biases, no norms": lambda n, p: not (n.endswith("bias") or "norm" in n),
    "biases first": lambda n, p: n.endswith("bias"),
}


class TestNames:
    def test_one_group(self, model):
        optimizer = trained(model, model.parameters())
        found = name_state(optimizer.state_dict(), shapes_of(model), float)
        assert_named(found, model, optimizer)
        assert found.groups[0].settings["lr"] == 1e-2

    @pytest.mark.parametrize("belongs", DIVISIONS.values(), ids=list(DIVISIONS))
    def test_two_groups(self, model, belongs):
        optimizer = trained(model, divided(model, belongs))
        assert_named(name_state(optimizer.state_dict(), shapes_of(model), float), model, optimizer)

    def test_named_parameters_need_no_guess(self, model):
        named = list(model.named_parameters())[::-1]
        optimizer = trained(model, named)
        assert_named(name_state(optimizer.state_dict(), shapes_of(model), float), model, optimizer)

    def test_the_user_s_order(self, model):
        names = list(shapes_of(model))[::-1]
        optimizer = trained(model, [dict(model.named_parameters())[name] for name in names])
        with pytest.raises(UserError, match="--parameter-names FILE"):
            name_state(optimizer.state_dict(), shapes_of(model), float)
        found = name_state(optimizer.state_dict(), shapes_of(model), float, names)
        assert_named(found, model, optimizer)

    def test_orders_that_the_shapes_cannot_tell_apart(self):
        """Two groups of equal sizes and shapes, which either division could have made."""
        parameters = {"a.bias": (4,), "b.weight": (4,)}
        entry = {"step": 1.0, "exp_avg": np.zeros(4), "exp_avg_sq": np.zeros(4)}
        groups = [{"params": [0]}, {"params": [1]}]
        content = {"state": {0: entry, 1: entry}, "param_groups": groups}
        with pytest.raises(UserError, match="several orders fit"):
            name_state(content, parameters, float)

    def test_before_the_first_step(self, model):
        optimizer = torch.optim.AdamW(model.parameters())
        found = name_state(optimizer.state_dict(), shapes_of(model), float)
        assert (found.count, found.first, found.second) == (0, {}, {})


class TestFaults:
    def test_all_names_that_do_not_fit(self, model):
        optimizer = trained(model, model.parameters())
        names = list(shapes_of(model))
        names[0], names[1] = names[1], "other"
        with pytest.raises(UserError) as caught:
            name_state(optimizer.state_dict(), shapes_of(model), float, names)
        says(caught.value, "'fc1.weight'", "[4, 4]", "moments", "[7, 4]")
        says(caught.value, "'other'", "no parameter")

    def test_too_few_names(self, model):
        optimizer = trained(model, model.parameters())
        with pytest.raises(UserError, match="2 names for 8 parameters"):
            name_state(optimizer.state_dict(), shapes_of(model), float, ["fc1.weight", "fc1.bias"])

    def test_other_optimizers(self, model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(torch.arange(7)).backward()
        optimizer.step()
        with pytest.raises(UserError, check=saying(0, "step", "exp_avg", "exp_avg_sq")):
            name_state(optimizer.state_dict(), shapes_of(model), float)

    def test_amsgrad(self, model):
        optimizer = trained(model, model.parameters(), amsgrad=True)
        with pytest.raises(UserError, match="group 0 has amsgrad"):
            name_state(optimizer.state_dict(), shapes_of(model), float)

    def test_what_only_resembles_adam(self, model):
        """NAdam has Adam's moments and a product of its own; a state can be any object."""
        optimizer = torch.optim.NAdam(model.parameters())
        model(torch.arange(7)).backward()
        optimizer.step()
        content = optimizer.state_dict()
        with pytest.raises(UserError, check=saying("parameter 0", "mu_product", "not Adam's")):
            name_state(content, shapes_of(model), float)
        content["state"] = dict.fromkeys(content["state"], "quantized")
        with pytest.raises(UserError, check=saying("parameter 0", "of its own kind")):
            name_state(content, shapes_of(model), float)

    def test_different_step_counts(self, model):
        content = trained(model, model.parameters()).state_dict()
        content["state"][2]["step"] = torch.tensor(5.0)
        with pytest.raises(UserError, check=saying("steps", 3, 5)):
            name_state(content, shapes_of(model), float)

    def test_what_is_one(self, model):
        assert is_optimizer_state(trained(model, model.parameters()).state_dict())
        assert not is_optimizer_state(model.state_dict()) and not is_optimizer_state(None)


@pytest.mark.parametrize("belongs", [None, DIVISIONS["vectors first"]], ids=["one", "two"])
def test_the_way_back(model, belongs):
    """A state dict of ours makes a fresh optimizer go on exactly like the old one."""

    def groups_of(model):
        return divided(model, belongs) if belongs else model.parameters()

    optimizer = trained(model, groups_of(model))
    found = name_state(optimizer.state_dict(), shapes_of(model), float)
    content = state_dict(
        found.groups,
        lambda name: found.first[name].clone(),
        lambda name: found.second[name].clone(),
        found.count,
    )
    twin = Model()
    twin.load_state_dict(model.state_dict())
    fresh = torch.optim.AdamW(groups_of(twin))
    fresh.load_state_dict(content)
    for one, other in ((model, optimizer), (twin, fresh)):
        other.zero_grad()
        one(torch.arange(7)).backward()
        other.step()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)
