"""hf:FOLDER: the classes of transformers themselves beside what convert makes of their files."""

import json
import subprocess
import sys

import pytest
from messages import saying, says

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("jax")

import t5_cases  # noqa: E402
from huggingface_cases import TINY, in_float64, random_model  # noqa: E402
from parity_cases import assert_order_does_not_matter  # noqa: E402
from translate_cases import make_run  # noqa: E402

from parity.comparison.comparison import compare  # noqa: E402
from parity.comparison.settings import Settings  # noqa: E402
from parity.forward.substeps import is_step, substeps  # noqa: E402
from parity.sides.opening import open_side  # noqa: E402
from transformer_spec import UserError, trained_names  # noqa: E402
from twinformer import convert  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64")
OPUS = {"pad_token_id": 28, "decoder_start_token_id": 28, "eos_token_id": 0, "d_model": 12}
NAMES = ("right", "moved")
CLASSES = {
    "marian": (transformers.MarianConfig, transformers.MarianMTModel, OPUS),
    "bart": (transformers.BartConfig, transformers.BartForConditionalGeneration, {}),
    "mbart": (transformers.MBartConfig, transformers.MBartForConditionalGeneration, {}),
    "m2m100": (transformers.M2M100Config, transformers.M2M100ForConditionalGeneration, {}),
    "pegasus": (transformers.PegasusConfig, transformers.PegasusForConditionalGeneration, {}),
    "fsmt": (
        transformers.FSMTConfig,
        transformers.FSMTForConditionalGeneration,
        {"vocab_size": None, "src_vocab_size": 29, "tgt_vocab_size": 31},
    ),
    "blenderbot-small": (
        transformers.BlenderbotSmallConfig,
        transformers.BlenderbotSmallForConditionalGeneration,
        {"scale_embedding": False},
    ),
}


def saved(kind: str, folder, **changes):
    config_class, model_class, own = CLASSES[kind]
    values = {name: value for name, value in (TINY | own | changes).items() if value is not None}
    model = random_model(model_class, config_class(**values))
    with in_float64():
        model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", CLASSES)
def test_every_sub_step_and_gradient(kind, tmp_path):
    folder = saved(kind, tmp_path / kind)
    report = compare(f"hf:{folder}", str(folder), Settings(precisions=(), longest=6))
    assert report.same, report.verdict
    assert CLASSES[kind][1].__name__ in report.a.what
    config = open_side(str(folder)).config
    parts = [row.part for row in report.rows]
    steps = [part for part in parts if is_step(part)]
    assert steps == substeps(config)
    gradients = {p.split(" but ")[0].removeprefix("gradient of ") for p in parts if "gradient" in p}
    assert gradients == set(trained_names(config))
    table = "gradient of encoder.embedding.weight"
    assert f"{table} but row {config.pad_id}" in parts


@pytest.mark.parametrize("kind", ["pegasus", "fsmt"])
def test_sinusoids_that_the_library_saves_in_float32(kind, tmp_path):
    """As save_pretrained of transformers 5 leaves them: the class's own numbers, float32."""
    config_class, model_class, own = CLASSES[kind]
    values = {name: value for name, value in (TINY | own).items() if value is not None}
    model = model_class(config_class(**values))
    model.save_pretrained(tmp_path / "right")
    with torch.no_grad():
        model.model.encoder.embed_positions.weight.add_(1e-4)
    model.save_pretrained(tmp_path / "moved")
    settings = Settings(precisions=(), gradients=False, longest=6)
    reports = {f: compare(f"hf:{tmp_path / f}", f"{tmp_path / f}", settings) for f in NAMES}
    assert reports["right"].same, reports["right"].verdict
    assert not reports["moved"].same  # a table of its own, and no rounding


@pytest.mark.parametrize(("kind", "own"), [("t5", False), ("t5", True), ("umt5", False)])
def test_every_sub_step_and_gradient_of_t5(kind, own, tmp_path):
    """Its norms are of a class of its own, and compute in float32 unless they are widened."""
    gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} if own else {}
    folder = tmp_path / kind
    t5_cases.build(kind, own, **gated).save_pretrained(folder)
    report = compare(f"hf:{folder}", str(folder), Settings(precisions=(), longest=29))
    assert report.same, report.verdict
    config = open_side(str(folder)).config
    parts = [row.part for row in report.rows]
    assert [part for part in parts if is_step(part)] == substeps(config)
    gradients = {p.split(" but ")[0].removeprefix("gradient of ") for p in parts if "gradient" in p}
    assert gradients == set(trained_names(config))


@pytest.mark.parametrize("kind", ["marian", "m2m100"])
def test_a_narrow_format_takes_nothing_from_the_next(kind, tmp_path):
    folder = saved(kind, tmp_path / kind)
    assert_order_does_not_matter(f"hf:{folder}", str(folder))


def test_a_wrong_setting_beside_the_class_itself(tmp_path):
    folder, wrong = saved("bart", tmp_path / "bart"), tmp_path / "wrong"
    saved("bart", wrong)
    settings = json.loads((wrong / "config.json").read_text())
    settings["activation_function"] = "gelu_new"
    (wrong / "config.json").write_text(json.dumps(settings))
    report = compare(f"hf:{folder}", str(wrong), Settings((), gradients=False, longest=6))
    assert report.first.part == "encoder.enc_layers.0.ffn.fc2 input"
    assert report.causes[0].in_words == "activation: A 'gelu', B 'gelu_tanh'"


class TestWhatOurTwinIsNot:
    """A class that computes otherwise than its files say: our twin of it is the other side."""

    EXACT = Settings(precisions=(), gradients=False, longest=6)

    def both_ways(self, one, other) -> list[list[str]]:
        reports = [compare(*map(str, pair), self.EXACT) for pair in ((one, other), (other, one))]
        for report in reports:
            assert report.causes[0].in_words in report.verdict
        return [[cause.in_words for cause in report.causes] for report in reports]

    def test_the_factor_that_mt5_leaves_out(self, tmp_path):
        """Settings of sinusoids change nothing of relative positions, and explain nothing."""
        t5_cases.build("t5", False).save_pretrained(tmp_path / "t5")
        convert(tmp_path / "t5", tmp_path / "mt5", to="mt5")
        found = self.both_ways(f"hf:{tmp_path / 'mt5'}", tmp_path / "t5")
        values = 1.0, t5_cases.SCALED
        assert found == [[f"output scale: A {a!r}, B {b!r}"] for a, b in (values, values[::-1])]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[:-40], "config.json cannot be read as JSON"),
        (lambda text: f"[{text}]", "config.json .*no JSON object but a list"),
        (lambda text: text.replace('"d_model": ', '"d_model": "x",  "was": '), "'d_model'"),
        (lambda text: text.replace("_function", '_function": "none", "was'), "KeyError: 'none'"),
    ],
)
def test_a_damaged_config_is_the_user_s(tmp_path, damage, said):
    folder = saved("bart", tmp_path / "bart")
    path = folder / "config.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=said):
        open_side(f"hf:{folder}")


LACKING = """
import sys
sys.modules.update(dict.fromkeys({missing}))
import twinformer
from parity.__main__ import main
try:
    twinformer.compare("hf:x", "y")
except twinformer.UserError as error:
    print(error)
sys.stderr = sys.stdout
sys.exit(main(["hf:x", "y"]))
"""


@pytest.mark.parametrize("missing", [["torch", "transformers"], ["jax", "flax"], ["torch"]])
def test_all_that_is_not_installed_at_once(missing):
    code = LACKING.format(missing=missing)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    of_python, of_the_command = done.stdout.splitlines()
    assert done.returncode == 2
    for said in (of_python, of_the_command):
        says(said, "not installed", *missing, "both frameworks", "pip install 'twinformer[all]'")
        assert ("transformers" in said) is ("transformers" in missing)


def test_a_class_that_is_no_family_is_one_line(tmp_path):
    """transformers itself names every class that it has."""
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8}
    config = transformers.BertConfig(vocab_size=9, intermediate_size=8, **sizes)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, check=saying("model_type 'bert'", "marian", "m2m_100")) as error:
        open_side(f"hf:{tmp_path / 'bert'}")
    assert "LEDConfig" not in str(error.value) and "\n" not in str(error.value)


def test_what_the_library_says_is_cut(tmp_path):
    folder = saved("bart", tmp_path / "bart")
    (folder / "config.json").write_text('{"architectures": ["X"], "d_model": 12}')
    with pytest.raises(UserError, check=saying("transformers cannot read", str(folder))) as error:
        open_side(f"hf:{folder}")
    assert len(str(error.value)) < len(str(folder)) + 400


def test_what_is_no_folder_of_the_library(tmp_path):
    with pytest.raises(UserError, check=saying("no config.json", "hf:")):
        open_side(f"hf:{tmp_path}")


def test_a_module_without_a_function_says_so():
    with pytest.raises(UserError, check=saying("module:wrong.py", "FUNCTION")):
        open_side("module:wrong.py")


def test_a_folder_of_ours_is_given_without_the_prefix(tmp_path):
    make_run(tmp_path / "run", "torch")
    with pytest.raises(UserError, match="transformers does not read.*without hf:"):
        open_side(f"hf:{tmp_path / 'run'}")
