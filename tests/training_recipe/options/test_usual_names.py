"""What a user of other programs types is answered with what it is called here."""

import pytest
from messages import says

import translate
from training_recipe.options.flags import parse
from training_recipe.options.request import ALL
from training_recipe.options.usual_names import USUAL_NAMES, meant
from transformer_spec import UserError
from transformer_spec.errors import closest
from twinformer.commands import translate_flags as translating

FLAGS = [declaration.flag for declaration in ALL.values()]


@pytest.mark.parametrize(
    ("given", "here"),
    [
        ("--learning-rate", "--peak-lr"),
        ("--lr", "--peak-lr"),
        ("--d-model", "--hidden-dim"),
        ("--d_model", "--hidden-dim"),
        ("--batch-size", "--batch-tokens N"),
        ("--epochs", "--steps N"),
        ("--cpu", "--device cpu"),
        ("--gpu", "--device gpu"),
        ("--warmup", "--warmup-steps"),
        ("--layers", "--num-encoder-layers N --num-decoder-layers N"),
        ("--heads", "--num-heads"),
        ("--ffn-dim", "--inner-dim"),
        ("--vocab-size", "--source-vocab-size N --target-vocab-size N"),
        ("--max-len", "--max-length"),
        ("--wd", "--weight-decay"),
        ("--fp16", "--dtype bfloat16"),
        ("--beam-size", "--beam"),
    ],
)
def test_usual_flags_of_training(given, here):
    with pytest.raises(UserError) as caught:
        parse([given, "3"])
    (fault,) = caught.value.faults
    assert given in fault and f"here it is {here}" in fault


def test_settings_of_recipes_have_no_dashes(tmp_path):
    (tmp_path / "r.toml").write_text("[optimisation]\nlearning_rate = 0.1\n[model]\nlayers = 3\n")
    with pytest.raises(UserError) as caught:
        parse(["--recipe", str(tmp_path / "r.toml")])
    one, other = caught.value.faults
    assert one.endswith("here it is peak_lr")
    says(other, "layers", "num_encoder_layers N num_decoder_layers N")


@pytest.mark.parametrize(
    ("given", "here"),
    [("--num-beams", "--beam"), ("--input", "--file"), ("--cpu", "--device cpu")],
)
def test_each_command_names_its_own_flags(given, here, capsys):
    assert translate.main(["run", given, "3"]) == 2
    assert f"for {given} here it is {here}" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["--lr", "--epochs", "--d-model"])
def test_a_flag_that_the_command_lacks_is_not_proposed(given):
    assert meant(given, ["--beam", "--device", "--help"]) == ""


@pytest.mark.parametrize(
    ("given", "near"),
    [("--stesp", "--steps"), ("--beem", "--beam"), ("--droput", "--dropout"), ("--tooo", "--to")],
)
def test_slips_of_the_keyboard(given, near):
    assert meant(given, [*FLAGS, "--to"]) == f"; did you mean {near}?"


@pytest.mark.parametrize("given", ["--learning-rate", "--d-model", "--q", "--hello", "--cpu"])
def test_what_is_far_from_everything_is_not_guessed_at(given):
    assert closest(given, FLAGS) == ""


def test_every_answer_is_possible_in_a_command():
    actions = translating.parser()._option_string_actions
    known = {*FLAGS, *actions}
    for here, names in USUAL_NAMES.items():
        assert f"; here it is {here}" in {meant(f"--{name}", known) for name in names.split()}
