"""States of users' own optax loops, saved by Orbax and by flax: weights and moments are read."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")

import flax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
import orbax.checkpoint  # noqa: E402
from convert_cases import (  # noqa: E402
    assert_same_arrays,
    config_flags,
    convert,
    fail,
    write_run,
)
from flax import nnx  # noqa: E402
from flax.training.train_state import TrainState  # noqa: E402

import flax_transformer  # noqa: E402
from convert import flax_to_torch  # noqa: E402
from convert.__main__ import main  # noqa: E402
from convert.checkpoints import read_checkpoint  # noqa: E402
from convert.checkpoints.loops.states import find_loop_state  # noqa: E402
from convert.checkpoints.reading import open_content  # noqa: E402
from convert.core.tensors import Held  # noqa: E402
from transformer_spec import TransformerConfig  # noqa: E402

CONFIG = TransformerConfig(
    source_vocab_size=11, target_vocab_size=7, hidden_dim=6, inner_dim=5, num_heads=2,
    num_encoder_layers=1, num_decoder_layers=1, max_length=5, encoder_positions="learned",
)  # fmt: skip
STEPS = 3
RATE = optax.linear_schedule(1e-3, 0.0, 10)


def is_matrix(params):
    return jax.tree.map(lambda x: x.ndim > 1, params)


def everything(params):
    return jax.tree.map(lambda _: True, params)


def kinds(params):
    return jax.tree.map(lambda x: "matrix" if x.ndim > 1 else "vector", params)


OPTIMIZERS = {
    "adamw": optax.adamw(1e-3),
    "clipped, scheduled and masked": optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(RATE, mask=is_matrix)
    ),
    "inside a mask": optax.masked(optax.adam(1e-3), everything),
    "one for matrices, one for vectors": optax.multi_transform(
        {"matrix": optax.adamw(RATE), "vector": optax.adam(1e-4)}, kinds
    ),
    "adam's state alone": optax.scale_by_adam(),
}


def gradients(params, step: int):
    draw = np.random.default_rng(step)
    return jax.tree.map(lambda x: jnp.asarray(draw.normal(size=x.shape), x.dtype), params)


@functools.cache
def first_weights():
    return nnx.to_pure_dict(nnx.state(flax_transformer.Transformer(CONFIG, seed=0), nnx.Param))


@functools.cache
def trained(optimizer):
    """(weights, optimizer's state) after some steps of a loop."""
    params = first_weights()
    state = jax.jit(optimizer.init)(params)
    for step in range(STEPS):
        params, state = updated(optimizer, gradients(params, step), state, params)
    return params, state


@functools.partial(jax.jit, static_argnums=0)
def updated(optimizer, gradients, state, params):
    """A step as one program, where every operation of it would be one."""
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def adam_of(state):
    """(mu, nu) in optax's own words, of all states of Adam together."""
    is_adam = lambda x: isinstance(x, optax.ScaleByAdamState)  # noqa: E731
    adams = [x for x in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(x)]
    return [dict(pair for a in adams for pair in flat(getattr(a, n)).items()) for n in ("mu", "nu")]


def flat(tree) -> dict[str, np.ndarray]:
    """Arrays under their keys joined with dots; what a mask leaves out is no array."""
    named = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {".".join(str(k.key) for k in path): np.asarray(x) for path, x in named}


def assert_read(source, folder, params, state, *flags) -> None:
    """Converted for the PyTorch twin, weights, moments and count are those of the loop."""
    convert(source, folder, "--to", "torch", *config_flags(CONFIG), *flags)
    found = read_checkpoint(folder)
    assert found.count == STEPS
    parts = (found.weights, found.first_moments, found.second_moments)
    for part, expected in zip(parts, (flat(params), *adam_of(state)), strict=True):
        assert_same_arrays(
            dict(sorted(part.items())), dict(sorted(flax_to_torch(expected).items()))
        )


def save(path, tree):
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
    return path


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
class TestEveryOptimizer:
    @pytest.mark.sampled(2)
    def test_in_orbax(self, optimizer, tmp_path):
        params, state = trained(OPTIMIZERS[optimizer])
        source = save(tmp_path / "orbax", {"params": params, "opt_state": state})
        assert_read(source, tmp_path / "torch", params, state)

    def test_in_msgpack(self, optimizer, tmp_path):
        params, state = trained(OPTIMIZERS[optimizer])
        content = flax.serialization.to_bytes({"params": params, "opt_state": state})
        (tmp_path / "loop.msgpack").write_bytes(content)
        assert_read(tmp_path / "loop.msgpack", tmp_path / "torch", params, state)


class TestTrainState:
    @pytest.fixture
    def state(self):
        optimizer = OPTIMIZERS["clipped, scheduled and masked"]
        state = TrainState.create(apply_fn=None, params=first_weights(), tx=optimizer)
        for step in range(STEPS):
            state = jax.jit(TrainState.apply_gradients)(state, grads=gradients(state.params, step))
        return state

    def test_in_orbax(self, state, tmp_path):
        source = save(tmp_path / "orbax", state)
        assert_read(source, tmp_path / "torch", state.params, state.opt_state)

    def test_in_msgpack(self, state, tmp_path):
        (tmp_path / "state.msgpack").write_bytes(flax.serialization.to_bytes(state))
        assert_read(tmp_path / "state.msgpack", tmp_path / "torch", state.params, state.opt_state)

    def test_what_is_the_loop_s_own_is_dropped_by_name(self, state, tmp_path):
        convert(save(tmp_path / "o", state), tmp_path / "t", "--to", "torch", *config_flags(CONFIG))
        sources = json.loads((tmp_path / "t" / "conversion.json").read_text())["sources"]
        gone = {name for name, entry in sources.items() if entry["what"] == "dropped"}
        assert gone == {"step", "opt_state.1.2.count"}


@pytest.mark.parametrize("pure", [False, True])
def test_an_optimizer_of_flax_nnx(pure, tmp_path):
    """Variables of a State have ``.value`` behind their names."""
    model = flax_transformer.Transformer(CONFIG, seed=0)
    optimizer = nnx.Optimizer(model, OPTIMIZERS["clipped, scheduled and masked"], wrt=nnx.Param)
    for step in range(STEPS):
        optimizer.update(model, gradients(nnx.state(model, nnx.Param), step))
    state = {"model": nnx.state(model), "optimizer": nnx.state(optimizer)}
    plain = {name: nnx.to_pure_dict(part) for name, part in state.items()}
    source = save(tmp_path / "orbax", plain if pure else state)
    adam = plain["optimizer"]["opt_state"][1][0]
    held = optax.ScaleByAdamState(adam["count"], adam["mu"], adam["nu"])
    assert_read(source, tmp_path / "torch", plain["model"], held)


def test_names_of_the_pytorch_twin(tmp_path):
    """A loop over a flat dict under canonical names."""
    params = {n: jnp.asarray(a) for n, a in flax_to_torch(flat(first_weights())).items()}
    state = optax.adamw(1e-3).init(params)
    _, state = optax.adamw(1e-3).update(gradients(params, 0), state, params)
    source = save(tmp_path / "orbax", {"params": params, "opt_state": state})
    convert(source, tmp_path / "torch", "--to", "torch", *config_flags(CONFIG))
    found = read_checkpoint(tmp_path / "torch")
    assert found.count == 1
    moments = dict(sorted(found.first_moments.items()))
    assert_same_arrays(moments, {n: np.asarray(a) for n, a in sorted(state[0].mu.items())})


def test_what_we_write_a_loop_restores_and_we_read_again(tmp_path):
    """optax.adamw goes on from a torch checkpoint; what it saves is read."""
    params, state = trained(OPTIMIZERS["adamw"])
    source = save(tmp_path / "orbax", {"params": params, "opt_state": state})
    convert(source, tmp_path / "torch", "--to", "torch", *config_flags(CONFIG))
    convert(tmp_path / "torch", tmp_path / "flax", "--to", "flax")
    fresh = first_weights()
    target = {"params": fresh, "opt_state": OPTIMIZERS["adamw"].init(fresh)}
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        back = checkpointer.restore(tmp_path / "flax" / "orbax", target)
    jax.tree.map(np.testing.assert_array_equal, back, {"params": params, "opt_state": state})


def said_of(capsys, source, folder, *flags) -> str:
    """What a conversion prints, whose inspection prints the same notes and the same optimizer."""
    capsys.readouterr()
    convert(source, folder, "--to", "torch", *config_flags(CONFIG), *flags)
    said = capsys.readouterr().out
    assert main(["inspect", str(source), *config_flags(CONFIG), *flags]) == 0
    told = capsys.readouterr().out
    for note in said.splitlines()[:-1]:
        assert f"note       {note}" in told
    assert ("moments carried" in said) == ("moments after" in told)
    return said


def assert_weights_alone(folder, params) -> None:
    """The weights are those of the loop, and nothing of an optimizer is there."""
    found = open_content(folder).tensors.read_all()
    expected = flax_to_torch(flat(params))
    assert_same_arrays(dict(sorted(found.items())), dict(sorted(expected.items())))


class TestSeveralCopies:
    def test_an_average_beside_the_weights(self, tmp_path, capsys):
        params, state = trained(OPTIMIZERS["adamw"])
        average = jax.tree.map(lambda x: x / 2, params)
        tree = {"params": params, "ema_params": average, "opt_state": state}
        source = save(tmp_path / "orbax", tree)
        assert_read(source, tmp_path / "torch", params, state)
        said = said_of(capsys, source, tmp_path / "again")
        assert "ema_params holds a copy of the weights, which is left out; --key ema_params" in said
        said = said_of(capsys, source, tmp_path / "average", "--key", "ema_params")
        assert "the optimizer is left out, the weights are not: its moments are not those" in said
        assert_weights_alone(tmp_path / "average", average)

    def test_two_that_could_be_meant(self, tmp_path, capsys):
        params, _ = trained(OPTIMIZERS["adamw"])
        other = jax.tree.map(lambda x: x + 1, params)
        source = save(tmp_path / "orbax", {"teacher": params, "student": other})
        said = fail(capsys, source, tmp_path / "x", "--to", "torch", *config_flags(CONFIG))
        assert "in several places (student, teacher); say with --key" in said
        said = said_of(capsys, source, tmp_path / "s", "--key", "student")
        assert_weights_alone(tmp_path / "s", other)

    def test_a_key_that_is_not_there(self, tmp_path, capsys):
        params, _ = trained(OPTIMIZERS["adamw"])
        source = save(tmp_path / "orbax", {"params": params})
        flags = ("--to", "torch", "--key", "parms", *config_flags(CONFIG))
        said = fail(capsys, source, tmp_path / "x", *flags)
        assert "has no key 'parms'; choose one with --key: params" in said


LEFT_OUT = "the optimizer is left out, the weights are not: "
OTHERS = {
    "adafactor": (optax.adafactor(1e-3), "it keeps v_row, as Adafactor does"),
    "sgd": (optax.sgd(1e-3, momentum=0.9), "it keeps trace, as SGD with momentum does"),
    "amsgrad": (optax.amsgrad(1e-3), "it is Adam with amsgrad, which keeps a maximum too"),
    "lion": (optax.lion(1e-3), "it keeps mu, as Lion does"),
    "rmsprop": (optax.rmsprop(1e-3, momentum=0.9), "it keeps nu, as RMSProp does"),
    "novograd": (optax.novograd(1e-3), "have different shapes"),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("kind", "container"), [*((kind, "msgpack") for kind in OTHERS), ("adafactor", "orbax")]
)
def test_what_is_not_adam_is_left_out_with_one_note(kind, container, tmp_path, capsys):
    optimizer, reason = OTHERS[kind]
    create = jax.jit(lambda params: TrainState.create(apply_fn=None, params=params, tx=optimizer))
    state = create(first_weights())
    state = jax.jit(TrainState.apply_gradients)(state, grads=gradients(state.params, 0))
    source = tmp_path / "checkpoint_1"
    if container == "orbax":
        save(source, state)
    else:
        source.write_bytes(flax.serialization.to_bytes(state))
    said = said_of(capsys, source, tmp_path / "torch")
    assert said.count(LEFT_OUT) == 1 and reason in said and "starts fresh" in said
    assert "damaged" not in said
    assert_weights_alone(tmp_path / "torch", state.params)
    assert LEFT_OUT not in said_of(capsys, source, tmp_path / "without", "--no-optimizer")


def test_an_optimizer_that_keeps_nothing_needs_no_note(tmp_path, capsys):
    params = first_weights()
    source = save(tmp_path / "o", {"params": params, "opt_state": optax.sgd(RATE).init(params)})
    assert LEFT_OUT not in said_of(capsys, source, tmp_path / "torch")
    assert_weights_alone(tmp_path / "torch", params)


def test_gradients_that_are_gathered_over_steps(tmp_path):
    """The state of optax.MultiSteps has gradients under the weights' names."""
    params, state = trained(OPTIMIZERS["adamw"])
    fresh = optax.MultiSteps(optax.adamw(1e-3), every_k_schedule=2).init(params)
    gathered = fresh._replace(inner_opt_state=state, acc_grads=gradients(params, 9))
    source = save(tmp_path / "orbax", {"params": params, "opt_state": gathered})
    assert_read(source, tmp_path / "torch", params, state)


TAKEN_AS_ADAM = "taken as Adam's, as it has count, mu and nu"
NOT_CARRIED = "beside Adam's state the optimizer keeps what is not carried: "


def loop(tmp_path, optimizer, steps=STEPS):
    """What a loop with an optimizer of optax saves in Orbax after some steps."""
    params = first_weights()
    state = jax.jit(optimizer.init)(params)
    for step in range(steps):
        params, state = updated(optimizer, gradients(params, step), state, params)
    return save(tmp_path / "orbax", {"params": params, "opt_state": state})


@pytest.mark.parametrize("kind", ["adamax", "adabelief", "yogi", "adamw"])
def test_names_do_not_tell_adam_from_others(kind, tmp_path, capsys):
    source = loop(tmp_path, getattr(optax, kind)(1e-3))
    said = said_of(capsys, source, tmp_path / "torch")
    lines = [line for line in said.splitlines() if TAKEN_AS_ADAM in line]
    assert len(lines) == 1
    assert "adamax, adamaxw, adabelief, yogi, adopt" in lines[0] and "--no-optimizer" in lines[0]
    said = said_of(capsys, source, tmp_path / "without", "--no-optimizer")
    assert TAKEN_AS_ADAM not in said


def test_what_this_program_wrote_is_adam_s(tmp_path, capsys):
    """A run, a folder that was converted, and the Orbax folder in it: no note."""
    run = write_run(tmp_path / "run", "flax")
    convert(run, tmp_path / "torch", "--to", "torch")
    convert(tmp_path / "torch", tmp_path / "flax", "--to", "flax")
    step = run / "checkpoints" / "step_00000020"
    places = [run, step, tmp_path / "flax", tmp_path / "flax" / "orbax"]
    (step / "tensors.json").unlink()  # as checkpoints of older versions have none
    for number, place in enumerate(places):
        convert(place, tmp_path / f"{number}", "--to", "torch", "--no-verify")
    said = capsys.readouterr().out
    assert said.count("optimizer moments carried") == len(places) + 2
    assert TAKEN_AS_ADAM not in said


LOST = {
    "in the middle of a step": (
        optax.MultiSteps(optax.adamw(1e-3), every_k_schedule=2),
        "opt_state.acc_grads (", "gradients of 1 mini-step that are in no update yet",
    ),
    "two mini-steps": (
        optax.MultiSteps(optax.adamw(1e-3), every_k_schedule=5), "gradients of 3 mini-steps",
    ),
    "ema": (optax.chain(optax.adamw(1e-3), optax.ema(0.9)), "opt_state.1.ema (", "of updates"),
    "apply_every": (optax.chain(optax.adamw(1e-3), optax.apply_every(4)), "opt_state.1.grad_acc ("),
    "momentum": (optax.chain(optax.adamw(1e-3), optax.trace(0.9)), "opt_state.1.trace (", "moment"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOST)
def test_what_is_kept_beside_adam_s_state_is_named(kind, tmp_path, capsys):
    optimizer, *words = LOST[kind]
    said = said_of(capsys, loop(tmp_path, optimizer), tmp_path / "torch")
    lines = [line for line in said.splitlines() if NOT_CARRIED in line]
    assert len(lines) == 1
    assert f"{len(flat(first_weights()))} arrays" in lines[0]
    assert all(word in lines[0] for word in words), lines[0]


def test_nothing_is_lost_after_a_whole_step(tmp_path, capsys):
    """MultiSteps has zeros for gradients then; counts and flags of wrappers are no loss either."""
    optimizer = optax.MultiSteps(optax.adamw(1e-3), every_k_schedule=2)
    assert NOT_CARRIED not in said_of(capsys, loop(tmp_path, optimizer, 2), tmp_path / "torch")
    finite = optax.apply_if_finite(optax.chain(optax.zero_nans(), optax.adamw(RATE)), 3)
    (tmp_path / "b").mkdir()
    assert NOT_CARRIED not in said_of(capsys, loop(tmp_path / "b", finite), tmp_path / "x")


class TestHyperparameters:
    """inject_hyperparams keeps the settings of its optimizer as arrays in the state."""

    OPTIONS = {"learning_rate": 3e-4, "b1": 0.8, "b2": 0.98, "eps": 1e-7, "weight_decay": 1e-4}

    def written(self, source, folder, *flags):
        more = flags or config_flags(CONFIG)
        convert(source, folder, "--to", "torch", "--container", "pt", *more)
        torch = pytest.importorskip("torch")
        return torch.load(folder / "optimizer.pt", weights_only=True)["param_groups"]

    def expected(self, **options):
        held = {key: float(np.float32(x)) for key, x in (self.OPTIONS | options).items()}
        betas = held["b1"], held["b2"]
        rest = {key: held[key] for key in ("eps", "weight_decay")}
        return {"lr": held["learning_rate"], "betas": betas, **rest}

    @pytest.mark.parametrize("wrapped", ["alone", "in a chain", "scheduled", "by way of flax"])
    def test_become_those_of_the_one_group(self, wrapped, tmp_path, capsys):
        schedule = {"learning_rate": RATE} if wrapped == "scheduled" else {}
        optimizer = optax.inject_hyperparams(optax.adamw)(**self.OPTIONS | schedule)
        if wrapped == "in a chain":
            optimizer = optax.chain(optax.clip_by_global_norm(1.0), optimizer)
        source, flags = loop(tmp_path, optimizer), []
        if wrapped == "by way of flax":
            convert(source, tmp_path / "flax", "--to", "flax", *config_flags(CONFIG))
            source, flags = tmp_path / "flax", ["--from", "twinformer"]
        (group,) = self.written(source, tmp_path / "pt", *flags)
        last = {"learning_rate": RATE(STEPS - 1)} if schedule else {}
        expected = self.expected(**last)
        assert {key: group[key] for key in expected} == expected
        assert len(group["params"]) == len(flat(first_weights()))
        said = capsys.readouterr().out
        assert "does not say" not in said and "settings of the optimizer are read from" in said

    def test_only_some_of_them(self, tmp_path, capsys):
        """What is static is not in the state; what the user named is not known."""

        def optimizer(rate, eps, b1):
            return optax.adamw(rate, eps=eps, b1=b1)

        injected = optax.inject_hyperparams(optimizer)(rate=3e-4, eps=1e-7, b1=0.8)
        (group,) = self.written(loop(tmp_path, injected), tmp_path / "pt")
        assert group["eps"] == float(np.float32(1e-7)) and group["lr"] == 1e-3
        said = capsys.readouterr().out
        assert "a mask of weight decay" not in said
        assert "are not read: opt_state.hyperparams.b1, opt_state.hyperparams.rate" in said
        assert "the source does not say lr, betas, weight_decay" in said

    def test_those_of_several_optimizers_are_not_read(self, tmp_path, capsys):
        make = optax.inject_hyperparams(optax.adamw)
        several = {"matrix": make(1e-3), "vector": make(1e-4)}
        source = loop(tmp_path, optax.multi_transform(several, kinds))
        matrices, vectors = self.written(source, tmp_path / "pt")
        assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.01, 0.0)
        said = capsys.readouterr().out
        assert "settings of the optimizer that are not read: opt_state.inner_states.matrix" in said
        assert "what is read of the source does not say lr" in said


class TestSomeMomentsMissing:
    def test_zeros_stand_for_those_of_frozen_weights(self, tmp_path, capsys):
        params, _ = trained(OPTIMIZERS["adamw"])
        mask = {
            name: jax.tree.map(lambda _, n=name: n == "decoder", p) for name, p in params.items()
        }
        optimizer = optax.masked(optax.adam(1e-3), mask)
        _, state = optimizer.update(params, optimizer.init(params), params)
        source = save(tmp_path / "orbax", {"params": params, "opt_state": state})
        said = said_of(capsys, source, tmp_path / "x")
        count = len(flat(params["encoder"]))
        assert f"{count} weights have no moments of Adam" in said and "zeros stand for them" in said
        found = read_checkpoint(tmp_path / "x")
        moments = flax_to_torch(adam_of(state)[0])
        assert found.count == 1 and 0 < len(moments) < len(found.first_moments)
        for name, array in found.first_moments.items():
            np.testing.assert_array_equal(array, moments.get(name, np.zeros_like(array)))

    def test_counts_that_differ(self):
        arrays = {f"{x}.{part}.w{x}": np.zeros(1) for x in "ab" for part in ("mu", "nu")}
        arrays |= {"p.wa": np.zeros(1), "p.wb": np.zeros(1)}
        counts = {"a.count": np.array(1), "b.count": np.array(2)}
        found = find_loop_state(Held(arrays | counts), "p")
        assert found.count is None and "numbers of steps" in found.unread
        assert found.layout.weight_names(
            [name for name in found.tensors if name not in found.dropped]
        ) == ["wa", "wb"]


OLDER = {
    "flax.optim": ("target", "state.param_states", "grad_ema"),
    "flax.optim inside a state": ("optimizer.target", "optimizer.state.param_states", "grad_ema"),
    "a model inside nnx.Optimizer": ("optimizer.model", "optimizer.opt_state.0.trace", ""),
}


@pytest.mark.parametrize("form", OLDER)
def test_weights_inside_an_older_optimizer(form):
    place, states, leaf = OLDER[form]
    weights = flat(first_weights())
    arrays = {f"{place}.{name}": array for name, array in weights.items()}
    arrays |= {f"{states}.{name}.{leaf}".rstrip("."): array for name, array in weights.items()}
    found = find_loop_state(Held(arrays | {"optimizer.state.step": np.array(3)}))
    kept = [name for name in found.tensors if name not in found.dropped]
    assert found.layout.weight_names(kept) == list(weights) and len(kept) == len(weights)
    assert found.notes == [] and LEFT_OUT in found.unread


class TestInspection:
    def test_inspection_tells_the_optimizer(self, tmp_path, capsys):
        params, state = trained(OPTIMIZERS["adamw"])
        source = save(tmp_path / "orbax", {"params": params, "opt_state": state})
        assert main(["inspect", str(source), *config_flags(CONFIG)]) == 0
        assert f"moments after {STEPS} steps" in capsys.readouterr().out
