"""A user's torch.optim state goes along: training goes on in either twin, and back, unchanged."""

import json

import numpy as np
import pytest
import torch
from convert_cases import convert, fail
from messages import says
from torch_nn_cases import CASES, PAD

from convert.checkpoints import load_weights_of, read_checkpoint
from convert.core.tensors import Held
from convert.formats.safetensors import open_safetensors, write_safetensors
from training_recipe.batching.batches import Batch
from training_recipe.options.settings import TrainingSettings

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
]

BEFORE, AFTER, RATE = 20, 100, 1e-3
EXACT = TrainingSettings(
    dtype="float64", device="cpu", weight_decay=0.0, clip_norm=0.0, label_smoothing=0.0,
    adam_beta1=0.9, adam_beta2=0.999, adam_eps=1e-8,
)  # fmt: skip


def batches() -> list[Batch]:
    found = []
    for seed in range(3):
        draw = np.random.default_rng(seed)
        source, target = draw.integers(2, 11, (4, 7)), draw.integers(2, 13, (4, 6))
        source[1, 5:], target[2, 4:] = PAD, PAD
        parts = (source, target[:, :-1], target[:, 1:])
        found.append(Batch(*(np.ascontiguousarray(p, np.int32) for p in parts), pad_id=PAD))
    return found


def learn(module, optimizer, first: int, last: int) -> list[float]:
    """Steps of the user's own loop; the loss of each."""
    held, losses = batches(), []
    for step in range(first, last + 1):
        batch = held[step % 3]
        source, given, wanted = (
            torch.from_numpy(array).long()
            for array in (batch.source, batch.target_in, batch.target_out)
        )
        logits = type(module).forward.__wrapped__(module, source, given)
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=PAD
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def optimizer_of(module, grouped: bool):
    options = {"lr": RATE, "weight_decay": 0.0}
    if not grouped:
        return torch.optim.AdamW(module.parameters(), **options)
    named = list(module.named_parameters())
    groups = [[p for n, p in named if (p.ndim > 1) == matrices] for matrices in (True, False)]
    return torch.optim.AdamW([{"params": group} for group in groups], **options)


def flags_of(case) -> list[str]:
    flags = case.flags() | {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    return [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]


def further(backend) -> list[float]:
    """The same steps in one of our backends, from a converted folder."""
    held, losses = batches(), []
    for step in range(BEFORE + 1, BEFORE + AFTER + 1):
        result = backend.train_step([held[step % 3]], step, RATE)
        losses.append(float(result.loss_sum) / float(result.tokens))
    return losses


@pytest.fixture(
    params=[
        pytest.param(("post relu", False), id="one group", marks=pytest.mark.thorough),
        pytest.param(("pre gelu", True), id="two groups"),
    ]
)
def user(request, tmp_path):
    """(case, module, optimizer) after some steps, and what torch.save made of them."""
    name, grouped = request.param
    case = CASES[name]
    module = case.module()
    optimizer = optimizer_of(module, grouped)
    learn(module, optimizer, 1, BEFORE)
    state = {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    torch.save(state, tmp_path / "user.pt")
    return case, module, optimizer, grouped


def test_both_twins_go_on_as_the_user_would(user, tmp_path):
    from flax_transformer.step import make_backend as make_jax
    from torch_transformer.step import make_backend as make_torch

    case, module, optimizer, _ = user
    source = ["--from", "torch-nn", *flags_of(case)]
    expected = learn(module, optimizer, BEFORE + 1, BEFORE + AFTER)
    for to, make in (("torch", make_torch), ("flax", make_jax)):
        convert(tmp_path / "user.pt", tmp_path / to, "--to", to, *source)
        config, _ = load_weights_of(tmp_path / to)
        losses = further(make(config, EXACT, read_checkpoint(tmp_path / to)))
        assert np.abs(np.subtract(losses, expected)).max() <= 1e-9, to
    assert expected[-1] < 0.9 * expected[0]


def test_the_user_goes_on_from_what_came_back(user, tmp_path):
    case, module, optimizer, grouped = user
    convert(tmp_path / "user.pt", tmp_path / "flax", "--to", "flax", *flags_of(case))
    convert(tmp_path / "flax", tmp_path / "back", "--to", "torch-nn")
    fresh = case.module()
    fresh.load_state_dict(torch.load(tmp_path / "back" / "model.pt", weights_only=True))
    again = optimizer_of(fresh, grouped)
    again.load_state_dict(torch.load(tmp_path / "back" / "optimizer.pt", weights_only=True))
    assert again.param_groups[0]["lr"] == RATE
    ours = learn(fresh, again, BEFORE + 1, BEFORE + 20)
    assert ours == learn(module, optimizer, BEFORE + 1, BEFORE + 20)


def test_what_is_said(user, tmp_path, capsys):
    case, module, _, grouped = user
    convert(tmp_path / "user.pt", tmp_path / "torch", "--to", "torch", *flags_of(case))
    said = capsys.readouterr().out
    assert "optimizer moments carried (20 steps" in said
    order = "its two groups" if grouped else "are taken in the order of the weights in the file"
    says(said, "the optimizer's parameters have no names", order, "--parameter-names FILE")
    torch.save(module.state_dict(), tmp_path / "bare.pt")
    convert(tmp_path / "bare.pt", tmp_path / "bare", "--to", "torch", *flags_of(case))
    says(capsys.readouterr().out, "no optimizer moments", "fresh")


def test_numbers_without_an_order(user, tmp_path, capsys):
    """Safetensors are sorted: the order of the parameters is not in them."""
    case, module, optimizer, grouped = user
    folder = tmp_path / "folder"
    folder.mkdir()
    state = {name: value.numpy() for name, value in module.state_dict().items()}
    write_safetensors(folder / "model.safetensors", Held(state))
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    convert(folder, tmp_path / "without", "--to", "torch", *flags_of(case))
    says(capsys.readouterr().out, "optimizer is left out", "give --parameter-names FILE")
    named = [n for n, _ in module.named_parameters()]
    if grouped:
        shapes = dict(module.named_parameters())
        named = [n for m in (True, False) for n in named if (shapes[n].ndim > 1) == m]
    (tmp_path / "names.txt").write_text("\n".join(named))
    more = ["--parameter-names", tmp_path / "names.txt"]
    convert(folder, tmp_path / "x", "--to", "torch", *flags_of(case), *more)
    convert(tmp_path / "user.pt", tmp_path / "y", "--to", "torch", *flags_of(case))
    one, other = read_checkpoint(tmp_path / "x"), read_checkpoint(tmp_path / "y")
    assert one.count == other.count == BEFORE
    for name, array in one.first_moments.items():
        assert array.tobytes() == other.first_moments[name].tobytes()


def test_our_own_run_as_torch_optim(tmp_path):
    """--to torch --container pt: what torch.optim.AdamW loads, matrices first, then vectors."""
    from convert_cases import CONFIG, write_run

    import torch_transformer

    run = write_run(tmp_path / "run", "flax")
    convert(run, tmp_path / "pt", "--to", "torch", "--container", "pt")
    model = torch_transformer.load(tmp_path / "pt")
    content = torch.load(tmp_path / "pt" / "optimizer.pt", weights_only=True)
    trained = [(n, p) for n, p in model.named_parameters() if n != "decoder.finalFc.bias"]
    assert CONFIG.output_bias == "frozen"
    groups = [[p for _, p in trained if (p.ndim > 1) == matrices] for matrices in (True, False)]
    optimizer = torch.optim.AdamW([{"params": group} for group in groups])
    optimizer.load_state_dict(content)
    expected = read_checkpoint(run / "checkpoints" / "step_00000020")
    for name, parameter in trained:
        state = optimizer.state[parameter]
        assert state["step"] == 20
        assert np.array_equal(state["exp_avg"].numpy(), expected.first_moments[name])
    assert json.loads((tmp_path / "pt" / "conversion.json").read_text())["optimizer_steps"] == 20


@pytest.mark.parametrize(
    "other", [{}, {"norm": "rms", "ffn_bias": False, "attention_bias": False}], ids=["pre", "rms"]
)
def test_our_own_twin_goes_on_by_position(other, tmp_path):
    """An optimizer that is built as the source's takes its moments over without any names.

    All matrices are of one shape, so that moments in another order would be loaded silently.
    """
    import torch_transformer
    from parity.twins.cases import config_of

    square = {"hidden_dim": 16, "inner_dim": 16, "num_heads": 2, "norm_position": "pre"}
    config = config_of(square | other | {"tied_embeddings": "all", "dropout": 0.0})
    assert config.final_norm
    model = torch_transformer.Transformer(config, dtype=torch.float64)
    optimizer = optimizer_of(model, True)
    learn_twin(model, optimizer, 3)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    (tmp_path / "own").mkdir()
    torch.save(state, tmp_path / "own" / "model.pt")
    config.save(tmp_path / "own" / "config.json")
    convert(tmp_path / "own", tmp_path / "pt", "--to", "torch", "--container", "pt")
    again = torch_transformer.load(tmp_path / "pt")
    fresh = optimizer_of(again, True)
    fresh.load_state_dict(torch.load(tmp_path / "pt" / "optimizer.pt", weights_only=True))
    learn_twin(model, optimizer, 2)
    learn_twin(again, fresh, 2)
    for (name, expected), found in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(expected, found), name


def learn_twin(model, optimizer, steps: int) -> None:
    """Steps of a loop with our PyTorch twin, without dropout."""
    for batch in batches()[:steps]:
        source, given, wanted = (
            torch.from_numpy(array).long()
            for array in (batch.source, batch.target_in, batch.target_out)
        )
        logits = model(source, given)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten()).backward()
        optimizer.step()


class TestHyperparameters:
    """What training goes on with: load_state_dict puts what the file says in the user's place."""

    ASKED = {"lr": 3e-5, "betas": (0.9, 0.98), "eps": 1e-9, "weight_decay": 0.1}

    def written(self, place):
        return torch.load(place / "optimizer.pt", weights_only=True)["param_groups"]

    def asked(self, group):
        return {key: group[key] for key in self.ASKED}

    def stored(self, path, grouped):
        """A module of torch-nn and its AdamW; vectors in a group with a rate of its own."""
        module = CASES["pre gelu"].module()
        named = list(module.named_parameters())
        groups = [{"params": [p for _, p in named]}]
        if grouped:
            groups = [
                {"params": [p for _, p in named if p.ndim > 1]},
                {"params": [p for _, p in named if p.ndim == 1], "lr": 1e-6, "weight_decay": 0.0},
            ]
        optimizer = torch.optim.AdamW(groups, **self.ASKED)
        learn(module, optimizer, 1, 2)
        torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict()}, path)
        return flags_of(CASES["pre gelu"])

    @pytest.mark.parametrize("by", [None, "orbax", "safetensors"])
    def test_one_group_loads_into_a_fresh_optimizer(self, by, tmp_path, capsys):
        import torch_transformer

        source, flags = tmp_path / "user.pt", self.stored(tmp_path / "user.pt", False)
        if by:
            convert(source, tmp_path / "flax", "--to", "flax", "--container", by, *flags)
            source, flags = tmp_path / "flax", []
        convert(source, tmp_path / "pt", "--to", "torch", "--container", "pt", *flags)
        model = torch_transformer.load(tmp_path / "pt")
        optimizer = torch.optim.AdamW(model.parameters(), **self.ASKED)
        content = torch.load(tmp_path / "pt" / "optimizer.pt", weights_only=True)
        count = len(content["param_groups"][0]["params"])
        says(capsys.readouterr().out, "optimizer.pt", f"of {count} parameters", "param_names")
        optimizer.load_state_dict(content)
        assert [self.asked(group) for group in optimizer.param_groups] == [self.ASKED]

    @pytest.mark.parametrize("by", [None, "orbax"])
    def test_every_parameter_keeps_its_own_rate(self, by, tmp_path):
        source, flags = tmp_path / "user.pt", self.stored(tmp_path / "user.pt", True)
        if by:
            convert(source, tmp_path / "flax", "--to", "flax", *flags)
            source, flags = tmp_path / "flax", []
        convert(source, tmp_path / "pt", "--to", "torch", "--container", "pt", *flags)
        matrices, vectors = self.written(tmp_path / "pt")
        assert self.asked(matrices) == self.ASKED
        assert self.asked(vectors) == self.ASKED | {"lr": 1e-6, "weight_decay": 0.0}
        for group, belongs in ((matrices, True), (vectors, False)):
            _, weights = load_weights_of(tmp_path / "pt")
            assert all((weights[n].ndim > 1) == belongs for n in group["param_names"])

    def test_what_training_changed_since_goes_the_way_back(self, tmp_path):
        flags = self.stored(tmp_path / "user.pt", True)
        convert(tmp_path / "user.pt", tmp_path / "pt", "--to", "torch", "--container", "pt", *flags)
        content = torch.load(tmp_path / "pt" / "optimizer.pt", weights_only=True)
        content["param_groups"][1]["lr"] = 0.5
        torch.save(content, tmp_path / "pt" / "optimizer.pt")
        for name in ("tensors.json", "conversion.json"):
            (tmp_path / "pt" / name).unlink(missing_ok=True)
        convert(tmp_path / "pt", tmp_path / "flax", "--to", "flax")
        convert(tmp_path / "flax", tmp_path / "back", "--to", "torch-nn")
        assert [group["lr"] for group in self.written(tmp_path / "back")] == [3e-5, 0.5]

    def test_what_the_source_does_not_say_is_said_to_be_a_default(self, tmp_path, capsys):
        """Moments of a run whose settings say nothing, and groups without a learning rate."""
        from convert_cases import write_run

        run = write_run(tmp_path / "run", "flax")
        convert(run, tmp_path / "pt", "--to", "torch", "--container", "pt")
        said = capsys.readouterr().out
        says(said, "optimizer.pt", "defaults", "lr 0.001", "eps 1e-08", "weight_decay 0.01")
        used = {"peak_lr": 2e-3, "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_eps": 1e-7}
        (run / "settings.json").write_text(json.dumps({"settings": used | {"weight_decay": 0.2}}))
        convert(run, tmp_path / "told", "--to", "torch", "--container", "pt")
        said = capsys.readouterr().out
        assert "defaults" not in said
        says(said, "optimizer.pt", "peak_lr", "0.002", "schedule")
        matrices, vectors = self.written(tmp_path / "told")
        known = {"lr": 2e-3, "betas": (0.8, 0.9), "eps": 1e-7, "weight_decay": 0.2}
        assert (self.asked(matrices), vectors["weight_decay"]) == (known, 0.0)
        convert(run, tmp_path / "flax", "--to", "flax")
        assert "defaults" not in capsys.readouterr().out  # there is no optimizer.pt

    @pytest.mark.parametrize("way", [["orbax"], ["safetensors", "orbax"]])
    def test_groups_of_the_twin_itself_by_way_of_flax(self, way, tmp_path, capsys):
        """One group of a user's own loop over the PyTorch twin, however often it is converted."""
        from convert_cases import CONFIG

        import torch_transformer

        model, source = torch_transformer.Transformer(CONFIG, seed=0), tmp_path / "user"
        options = self.ASKED | {"foreach": False}
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], **options)
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        source.mkdir()
        CONFIG.save(source / "config.json")
        content = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(content, source / "model.pt")
        convert(source, tmp_path / "direct", "--to", "torch", "--container", "pt")
        for container in way:
            place = tmp_path / container
            convert(source, place, "--to", "flax", "--container", container)
            source = place
        capsys.readouterr()
        convert(source, tmp_path / "back", "--to", "torch", "--container", "pt")
        says(capsys.readouterr().out, "groups and settings are the source's")
        direct, (group,) = self.written(tmp_path / "direct"), self.written(tmp_path / "back")
        assert [group] == direct
        assert self.asked(group) == self.ASKED and group["foreach"] is False
        assert type(group["betas"]) is tuple

    def test_groups_that_were_damaged_in_conversion_json(self, tmp_path, capsys):
        flags = self.stored(tmp_path / "user.pt", False)
        convert(tmp_path / "user.pt", tmp_path / "flax", "--to", "flax", *flags)
        place = tmp_path / "flax" / "conversion.json"
        content = json.loads(place.read_text())
        place.write_text(json.dumps(content | {"optimizer_groups": [["a", "b"]]}))
        capsys.readouterr()
        said = fail(capsys, tmp_path / "flax", tmp_path / "pt", "--to", "torch")
        says(said, "conversion.json is damaged", "optimizer_groups")

    def test_a_group_that_does_not_say_all(self, tmp_path, capsys):
        flags = self.stored(tmp_path / "user.pt", False)
        content = torch.load(tmp_path / "user.pt", weights_only=True)
        del content["optimizer"]["param_groups"][0]["eps"]
        torch.save(content, tmp_path / "user.pt")
        convert(tmp_path / "user.pt", tmp_path / "pt", "--to", "torch", "--container", "pt", *flags)
        said = capsys.readouterr().out
        says(said, "optimizer.pt", "does not say eps", "defaults", "eps 1e-08")
        assert "lr 0.001" not in said
        (group,) = self.written(tmp_path / "pt")
        assert self.asked(group) == self.ASKED | {"eps": 1e-8}


class TestMarian:
    """The library's own model and torch's own optimizers, saved as people's loops save them."""

    SIZES = {
        "vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32, "max_position_embeddings": 32, "pad_token_id": 39,
        "eos_token_id": 0, "decoder_start_token_id": 39, "scale_embedding": True,
    }  # fmt: skip

    @pytest.fixture
    def model(self):
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        return transformers.MarianMTModel(transformers.MarianConfig(**self.SIZES))

    def folder(self, model, optimizer, place, names=("model.pt", None)):
        ids = torch.randint(1, 39, (2, 7))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        place.mkdir()
        model.config.save_pretrained(place)
        weights, beside = names
        if beside is None:
            states = {"model_state_dict": model.state_dict(), "loss": 2.0}
            torch.save(states | {"optimizer_state_dict": optimizer.state_dict()}, place / weights)
        else:
            torch.save(model.state_dict(), place / weights)
            torch.save(optimizer.state_dict(), place / beside)
        return place

    def moments(self, folder, place):
        convert(folder, place, "--to", "torch")
        return open_safetensors(place / "optimizer.safetensors").read_all()

    @pytest.mark.parametrize("frozen", ["nothing", "model.encoder."])
    @pytest.mark.parametrize("names", [("model.pt", None), ("pytorch_model.bin", "optimizer.bin")])
    def test_tables_and_frozen_parameters_among_them(self, model, frozen, names, tmp_path, capsys):
        """``AdamW(model.parameters())``: the sinusoid tables are parameters without moments."""
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and not name.startswith(frozen))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        found = self.moments(self.folder(model, optimizer, tmp_path / "a", names), tmp_path / "b")
        layers = "encoder.layers.0", "decoder.layers.0"
        for ours, theirs in (
            (".multiheadattention.fcQ", ".self_attn.q_proj"),
            (".ffn.fc2", ".fc2"),
            (".multiheadattention2.fcOut", ".encoder_attn.out_proj"),
        ):
            half = layers["2." in ours]
            parameter = model.get_parameter(f"model.{half}{theirs}.weight")
            state = optimizer.state.get(parameter, {"exp_avg": torch.zeros_like(parameter)})
            layer = half.replace("layers", f"{half[:3]}_layers")
            assert (found[f"exp_avg/{layer}{ours}.weight"] == state["exp_avg"].numpy()).all()
        said = capsys.readouterr().out
        assert ("zeros stand for them" in said) == (frozen != "nothing")

    def test_the_way_back(self, model, tmp_path):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        self.folder(model, optimizer, tmp_path / "a")
        convert(tmp_path / "a", tmp_path / "flax", "--to", "flax")
        convert(tmp_path / "flax", tmp_path / "back", "--to", "marian", "--container", "pt")
        again = torch.optim.AdamW(model.parameters(), lr=1e-3)
        again.load_state_dict(torch.load(tmp_path / "back/optimizer.pt", weights_only=True))
        for parameter, state in optimizer.state.items():
            assert (again.state[parameter]["exp_avg_sq"] == state["exp_avg_sq"]).all()
        assert again.state.keys() == optimizer.state.keys()
        assert again.param_groups[0]["betas"] == (0.9, 0.999)  # a list would not be equal

    @pytest.mark.parametrize(
        "make",
        [
            lambda p: torch.optim.Adafactor(p, lr=1e-3),
            lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
            lambda p: torch.optim.AdamW(p, amsgrad=True),
            lambda p: torch.optim.AdamW(list(p)[3:7]),
        ],
        ids=["Adafactor", "SGD", "amsgrad", "some parameters"],
    )
    @pytest.mark.parametrize("names", [("model.pt", None), ("pytorch_model.bin", "optimizer.pt")])
    def test_what_cannot_be_carried(self, model, make, names, tmp_path, capsys):
        self.folder(model, make(model.parameters()), tmp_path / "a", names)
        convert(tmp_path / "a", tmp_path / "b", "--to", "torch")
        says(capsys.readouterr().out, "optimizer is left out", "weights are not")
        assert not (tmp_path / "b/optimizer.safetensors").exists()
        convert("inspect", tmp_path / "a")
        says(capsys.readouterr().out, "optimizer is left out")

    def test_an_order_is_not_asked_for_where_nothing_could_be_carried(
        self, model, tmp_path, capsys
    ):
        """Sorted safetensors keep no order of parameters: no order helps these."""
        model.save_pretrained(tmp_path / "a")
        for optimizer, words in (
            (torch.optim.Adafactor(model.parameters()), "is that of Adafactor (it keeps row_var)"),
            (torch.optim.SGD(model.parameters(), lr=0.1), "has no moments"),
        ):
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            torch.save(optimizer.state_dict(), tmp_path / "a/optimizer.pt")
            convert("inspect", tmp_path / "a")
            said = capsys.readouterr().out
            says(said, "optimizer.pt", words)
            assert "--parameter-names" not in said
            assert "in the order of the weights" not in said

    def test_a_file_that_is_no_optimizer(self, model, tmp_path, capsys):
        optimizer = torch.optim.AdamW(model.parameters())
        self.folder(model, optimizer, tmp_path / "a", ("pytorch_model.bin", "optimizer.pt"))
        torch.save([1, 2], tmp_path / "a/optimizer.pt")
        convert(tmp_path / "a", tmp_path / "b", "--to", "torch")
        says(capsys.readouterr().out, "optimizer is left out", "optimizer.pt")

    def test_not_asked_for(self, model, tmp_path, capsys):
        optimizer = torch.optim.AdamW(model.parameters())
        self.folder(model, optimizer, tmp_path / "a", ("pytorch_model.bin", "optimizer.pt"))
        convert(tmp_path / "a", tmp_path / "b", "--to", "flax")
        convert(tmp_path / "b", tmp_path / "c", "--to", "torch", "--no-optimizer")
        assert not list((tmp_path / "c").glob("optimizer*"))
        ledger = json.loads((tmp_path / "c/conversion.json").read_text())
        assert sum("not asked for" in s.get("reason", "") for s in ledger["sources"].values()) > 80


@pytest.mark.parametrize("name", ["T5", "MT5", "UMT5", "Bart"])
def test_the_groups_of_transformers_own_trainer(name, tmp_path, capsys):
    """Its first group is what decays; a T5's relative_attention_bias.weight does not."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"d_model": 16, "vocab_size": 40, "decoder_start_token_id": 0, "pad_token_id": 0}
    t5 = {"d_ff": 24, "d_kv": 8, "num_layers": 2, "num_heads": 2, "eos_token_id": 1}
    bart = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
            "encoder_attention_heads": 2, "decoder_attention_heads": 2}  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**sizes, **(bart if name == "Bart" else t5))
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).float()
    decays = transformers.Trainer.get_decay_parameter_names(None, model)
    groups = [
        {"params": [p for n, p in model.named_parameters() if (n in decays) == wanted], **more}
        for wanted, more in ((True, {"weight_decay": 0.01}), (False, {"weight_decay": 0.0}))
    ]
    optimizer = torch.optim.AdamW(groups, lr=3e-5)
    for parameter in model.parameters():
        moments = {"exp_avg": parameter.detach() * 2, "exp_avg_sq": parameter.detach() ** 2}
        optimizer.state[parameter] = {"step": torch.tensor(7.0), **moments}
    folder, place = tmp_path / "a", tmp_path / "pt"
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    convert(folder, place, "--to", "torch", "--container", "pt")
    says(capsys.readouterr().out, "optimizer moments carried", "7 steps")
    content = torch.load(place / "optimizer.pt", weights_only=True)
    decaying, others = content["param_groups"]
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    assert {"relative_bias" in n for n in decaying["param_names"]} == {False}
    assert any("relative_bias" in n for n in others["param_names"]) == (name != "Bart")
    _, weights = load_weights_of(place)
    for number, ours in enumerate([*decaying["param_names"], *others["param_names"]]):
        moment = content["state"][number]["exp_avg"].numpy()
        assert np.array_equal(moment, weights[ours] * 2), ours


def test_one_flat_parameter_of_fairseq(tmp_path, capsys):
    """FP16Optimizer makes one parameter of all; its moments lie one after the other."""
    pytest.importorskip("transformers")
    import argparse

    import fairseq_cases

    model = fairseq_cases.m2m100()
    state = fairseq_cases.state_of(model, sinusoidal=True)
    tied = "decoder.embed_tokens.weight", "decoder.output_projection.weight"
    buffers = "version", "_float_tensor"
    trained = [n for n in state if n not in tied and not n.endswith(buffers)]
    flat = torch.cat([torch.randn(state[name].size) for name in trained])
    moments = {"step": 5, "exp_avg": flat, "exp_avg_sq": flat**2}
    group = {"lr": 5e-4, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.0, "params": [0]}
    content = {
        "args": argparse.Namespace(**fairseq_cases.settings_of(model)),
        "model": {name: torch.from_numpy(array).half() for name, array in state.items()},
        "last_optimizer_state": {"state": {0: moments}, "param_groups": [group]},
    }
    torch.save(content, tmp_path / "checkpoint_best.pt")
    convert(tmp_path / "checkpoint_best.pt", tmp_path / "b", "--to", "torch")
    says(capsys.readouterr().out, "optimizer moments carried", "5 steps")
    found = open_safetensors(tmp_path / "b/optimizer.safetensors")
    before = trained[: trained.index("encoder.layers.1.fc1.weight")]
    start = sum(state[name].size for name in before)
    ours = found.read("exp_avg/encoder.enc_layers.1.ffn.fc1.weight")
    assert (ours.ravel() == flat[start : start + ours.size].numpy()).all()
    squares = found.read("exp_avg_sq/encoder.enc_layers.1.ffn.fc1.weight")
    assert (squares.ravel() == flat[start : start + ours.size].numpy() ** 2).all()
