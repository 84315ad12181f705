"""Sinusoid tables in checkpoints: the config's, or a UserError that says what to do."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

import fairseq_cases  # noqa: E402
from convert_cases import convert, fail  # noqa: E402
from family_checks import assert_round_trip, assert_same_logits, batch, import_source  # noqa: E402
from opennmt_reference import EMBEDDING, Checkpoint  # noqa: E402
from torch_nn_cases import FLAGS, Case, sinusoids, source_of  # noqa: E402

from convert.core.operations import RuleError  # noqa: E402
from convert.core.rules import ASIDE  # noqa: E402
from convert.families.sinusoids import SinusoidCheck, stored_sinusoids  # noqa: E402
from convert.families.torch_nn.family import TorchTransformer  # noqa: E402
from transformer_spec import TransformerConfig, UserError  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
]
FAMILY = TorchTransformer()
BUFFER = "positional_encoding.pe"
LEARNED = {
    "encoder.pos_embedding": BUFFER,
    "decoder.pos_embedding": BUFFER,
}


def with_buffer(table, wrapper=None, flags=None):
    """A user's module that keeps its positions in a buffer, as most tutorials write it."""
    state = Case().module().state_dict() | {BUFFER: table}
    return source_of(state, flags=FLAGS if flags is None else flags, wrapper=wrapper)


def in_shape(table, shape):
    return {"(L, D)": table, "(1, L, D)": table[None], "(L, 1, D)": table[:, None]}[shape]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", ["(L, D)", "(1, L, D)", "(L, 1, D)"])
def test_a_buffer_of_the_users_module_is_compared_and_kept(shape, dtype):
    table = in_shape(sinusoids(50), shape).to(dtype)
    if dtype == torch.bfloat16:
        table = table.float()  # rounded, in a format that NumPy reads
    source = with_buffer(table)
    config, canonical = import_source(FAMILY, source)
    assert np.array_equal(canonical[ASIDE + BUFFER], table.numpy())
    assert config.encoder_positions == "sinusoidal"
    assert_round_trip(FAMILY, source)


def test_a_buffer_with_all_sines_first_is_refused_with_a_way_out():
    table = sinusoids(50).float()
    concatenated = torch.cat([table[:, 0::2], table[:, 1::2]], 1)
    with pytest.raises(UserError) as raised:
        import_source(FAMILY, with_buffer(concatenated))
    message = str(raised.value)
    assert "not the sinusoids of this model; they differ by up to" in message
    assert f"--map encoder.pos_embedding={BUFFER} and decoder.pos_embedding={BUFFER}" in message


def test_a_buffer_that_is_dropped_is_compared_all_the_same(tmp_path, capsys):
    table = sinusoids(50).float()
    concatenated = torch.cat([table[:, 0::2], table[:, 1::2]], 1)
    words = [w for n, v in FLAGS.items() for w in (f"--{n.replace('_', '-')}", v)]
    state = Case().module().state_dict()
    for name, stored in (("right", table), ("wrong", concatenated)):
        torch.save(state | {BUFFER: stored}, tmp_path / f"{name}.pt")
        convert(tmp_path / f"{name}.pt", tmp_path / name, "--to", "torch", "--drop", "*.pe", *words)
        said = capsys.readouterr().out
        told = f"warning: {BUFFER} is left out by --drop, and is not the sinusoids of this model"
        assert (told in said) == (name == "wrong"), said


def test_a_table_that_is_nearly_the_sinusoids_is_warned_of(tmp_path, capsys):
    words = [w for n, v in FLAGS.items() for w in (f"--{n.replace('_', '-')}", v)]
    state, table = Case().module().state_dict(), sinusoids(50).float()
    angles = torch.arange(50.0)[:, None] * torch.exp(
        torch.arange(0, 16, 2) * (-np.log(10000.0) / 15)
    )
    computed = table.clone()
    computed[:, 0::2], computed[:, 1::2] = angles.sin(), angles[:, :7].cos()
    kinds = {
        "exact": table,
        "computed": computed,
        "moved": table + 1e-3,
        "through_half": table.half().float(),
        "half": table.half(),
    }
    for name, stored in kinds.items():
        torch.save(state | {BUFFER: stored}, tmp_path / f"{name}.pt")
        convert(tmp_path / f"{name}.pt", tmp_path / name, "--to", "torch", *words)
        said = capsys.readouterr().out
        told = f"warning: {BUFFER} holds float32 numbers that differ from the sinusoids"
        assert (told in said) == (name in ("moved", "through_half")), (name, said)
        if name == "moved":
            assert "by up to 0.001, where rounding explains 1.4e-05" in said
            assert f"--map encoder.pos_embedding={BUFFER}" in said


def test_parity_does_not_pass_over_a_table_that_the_config_does_not_stand_for(tmp_path):
    from parity.sides.opening import open_side

    words = " ".join(f"--{n.replace('_', '-')} {v}" for n, v in FLAGS.items())
    state = Case().module().state_dict()
    torch.save(state | {BUFFER: sinusoids(50)}, tmp_path / "right.pt")
    assert open_side(f"{tmp_path}/right.pt {words}").config.encoder_positions == "sinusoidal"
    torch.save(state | {BUFFER: -sinusoids(50)}, tmp_path / "wrong.pt")
    with pytest.raises(UserError, match="not the sinusoids of this model"):
        open_side(f"{tmp_path}/wrong.pt {words}")


@pytest.mark.parametrize("shape", ["(L, D)", "(1, L, D)", "(L, 1, D)"])
def test_one_buffer_serves_both_halves_as_a_learned_table(shape):
    table = in_shape(torch.arange(300, dtype=torch.float64).sin().reshape(20, 15), shape)
    flags = {n: v for n, v in FLAGS.items() if not n.endswith("_positions") and n != "max_length"}
    source = with_buffer(table, LEARNED, flags)
    config, canonical = import_source(FAMILY, source)
    assert (config.encoder_positions, config.decoder_positions, config.max_length) == (
        "learned", "learned", 20,
    )  # fmt: skip
    module = Case().module()
    module.embed = lambda tokens, words, _: (
        words(tokens) * module.case.scale + table.reshape(20, 15)[: tokens.shape[1]]
    )
    ids = batch(config)
    expected = module(*map(torch.from_numpy, ids)).numpy()
    assert_same_logits(FAMILY, config, canonical, *ids, expected)
    assert_round_trip(FAMILY, source)


def test_opennmt_computes_with_the_table_in_the_file(tmp_path, capsys):
    checkpoint = Checkpoint()
    saved = checkpoint.saved()
    torch.save(saved, tmp_path / "right.pt")
    convert(tmp_path / "right.pt", tmp_path / "right", "--to", "torch")
    name = f"decoder.{EMBEDDING}.pe.pe"
    saved["model"][name] = torch.zeros_like(saved["model"][name])
    torch.save(saved, tmp_path / "wrong.pt")
    capsys.readouterr()
    message = fail(capsys, tmp_path / "wrong.pt", tmp_path / "wrong", "--to", "torch")
    assert f"{name}: not the sinusoids of this model" in message
    assert "OpenNMT-py computes with the table in the file" in message
    assert not (tmp_path / "wrong").exists()


def test_a_table_is_compared_on_the_way_to_a_family_that_has_no_place_for_it(tmp_path, capsys):
    model = fairseq_cases.m2m100()
    state = fairseq_cases.legacy(fairseq_cases.state_of(model, True))
    name = "encoder.embed_positions.weights"

    def save(path, table):
        tensors = {n: torch.from_numpy(a) for n, a in (state | {name: table}).items()}
        torch.save({"model": tensors, "cfg": {"model": fairseq_cases.settings_of(model)}}, path)

    save(tmp_path / "right.pt", state[name])
    convert(tmp_path / "right.pt", tmp_path / "right", "--to", "m2m100")
    save(tmp_path / "wrong.pt", state[name][::-1].copy())
    capsys.readouterr()
    message = fail(capsys, tmp_path / "wrong.pt", tmp_path / "wrong", "--to", "m2m100")
    assert f"{name}: not the sinusoids of this model" in message
    assert f"fairseq computes its table again and never reads this one: --drop {name}" in message
    convert(tmp_path / "wrong.pt", tmp_path / "dropped", "--to", "m2m100", "--drop", name)


def test_a_shape_that_is_no_table():
    config = TransformerConfig.from_dict(
        {n: 8 for n in ("source_vocab_size", "target_vocab_size", "hidden_dim", "inner_dim")}
        | {"num_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 1, "max_length": 9}
        | {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}
    )
    check = SinusoidCheck(config)
    right = stored_sinusoids(config, 5)
    assert check.forward(right) == (right,)
    with pytest.raises(RuleError, match="shape .* is not 5 positions of the model"):
        check.forward(right[:, :6])
