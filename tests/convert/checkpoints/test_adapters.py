"""LoRA adapters: merged as PEFT merges them, in float64; what is no plain LoRA is refused."""

import json

import numpy as np
import pytest
from convert_cases import convert, fail
from messages import says

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from huggingface_cases import TINY, random_model  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402
from transformers import M2M100Config, M2M100ForConditionalGeneration  # noqa: E402

MODEL = "model.safetensors"


def config(**changes):
    return M2M100Config(**TINY | changes)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A float64 model as the library saves it."""
    folder = tmp_path_factory.mktemp("base")
    random_model(M2M100ForConditionalGeneration, config()).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore::FutureWarning")
class TestAsPeft:
    """Against PEFT itself: its folders, and what its own merge gives."""

    KINDS = {
        "projections": {"target_modules": ["q_proj", "v_proj"]},
        "everything linear": {"target_modules": "all-linear", "use_rslora": True},
        "patterns": {
            "target_modules": ["fc1", "fc2", "q_proj"],
            "rank_pattern": {"fc1": 2},
            "alpha_pattern": {r"encoder\.layers\.0\.fc1": 16, "q_proj": 5},
        },
        "biases": {"target_modules": ["out_proj"], "bias": "all"},
        "modules to save": {
            "target_modules": ["q_proj"],
            "modules_to_save": ["encoder.layers.0.fc2", "layer_norm"],
        },
    }

    @pytest.fixture
    def peft(self):
        return pytest.importorskip("peft")

    def adapted(self, peft, base, settings):
        """A base with an adapter of random numbers."""
        model = M2M100ForConditionalGeneration.from_pretrained(base, dtype=torch.float64)
        lora = peft.get_peft_model(model, peft.LoraConfig(r=3, lora_alpha=7, **settings)).double()
        draw = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in lora.parameters():
                if parameter.requires_grad:
                    parameter.normal_(0, 0.3, generator=draw)
        return lora

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_same_weights_as_its_own_merge(self, peft, base, tmp_path, kind):
        lora = self.adapted(peft, base, self.KINDS[kind])
        lora.save_pretrained(tmp_path / "adapter")
        convert(base, tmp_path / "ours", "--to", "m2m100", "--merge-adapter", tmp_path / "adapter")
        lora.merge_and_unload().save_pretrained(tmp_path / "theirs")
        ours, theirs = load_file(tmp_path / "ours" / MODEL), load_file(tmp_path / "theirs" / MODEL)
        before = load_file(base / MODEL)
        assert ours.keys() == theirs.keys() == before.keys()
        changed = 0
        for name, array in theirs.items():
            assert np.abs(ours[name] - array).max() <= 1e-14, name
            changed += not np.array_equal(array, before[name])
        assert changed >= 3

    def test_a_state_that_was_saved_with_its_adapter(self, peft, base, tmp_path, capsys):
        lora = self.adapted(peft, base, self.KINDS["projections"])
        lora.save_pretrained(tmp_path / "adapter")
        wrapped = tmp_path / "wrapped"
        wrapped.mkdir()
        (wrapped / "config.json").write_text((base / "config.json").read_text())
        torch.save(lora.state_dict(), wrapped / "pytorch_model.bin")
        message = fail(capsys, wrapped, tmp_path / "no", "--to", "torch")
        says(message, "tensors of LoRA adapters", "--merge-adapter FOLDER", "--drop '*.lora_*'")
        merge = ("--merge-adapter", tmp_path / "adapter")
        convert(wrapped, tmp_path / "one", "--to", "torch", *merge)
        convert(base, tmp_path / "other", "--to", "torch", *merge)
        one, other = (load_file(tmp_path / name / MODEL) for name in ("one", "other"))
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)
        convert(wrapped, tmp_path / "bare", "--to", "torch", "--drop", "*.lora_*")
        convert(base, tmp_path / "plain", "--to", "torch")
        assert (tmp_path / "bare" / MODEL).read_bytes() == (tmp_path / "plain" / MODEL).read_bytes()
        self.check_names_that_the_library_loads(base, wrapped, tmp_path, merge)

    def check_names_that_the_library_loads(self, base, wrapped, tmp_path, merge):
        """No adapter goes along, so that its wrapper's names are not put back either."""
        convert(base, tmp_path / "right", "--to", "m2m100", *merge)
        right = load_file(tmp_path / "right" / MODEL)
        convert(wrapped, tmp_path / "direct", "--to", "m2m100", *merge)
        convert(tmp_path / "one", tmp_path / "back", "--to", "m2m100")
        for name in ("direct", "back"):
            found = load_file(tmp_path / name / MODEL)
            assert right.keys() <= found.keys()
            assert not any("base_layer" in n or "base_model" in n for n in found)
            assert all(np.array_equal(found[n], array) for n, array in right.items())

    TABLE = "is one table in several places, and the adapter changes it in one"

    @pytest.mark.filterwarnings("ignore::UserWarning")
    @pytest.mark.parametrize(
        ("settings", "names"),
        [
            ({"modules_to_save": ["shared"]}, ["model.shared.weight"]),
            ({"modules_to_save": ["lm_head"]}, ["lm_head.weight"]),
            ({"target_modules": ["q_proj", "lm_head"]}, ["lm_head.weight"]),
        ],
        ids=["input replaced", "output replaced", "product in the output"],
    )
    def test_a_tied_table_changed_in_one_place(self, peft, base, tmp_path, capsys, settings, names):
        """PEFT changes that place alone, and ours has one table for all of them."""
        lora = self.adapted(peft, base, {"target_modules": ["q_proj"]} | settings)
        lora.save_pretrained(tmp_path / "adapter")
        merge = ("--merge-adapter", tmp_path / "adapter")
        message = fail(capsys, base, tmp_path / "no", "--to", "torch", *merge)
        says(message, *(f"{name} {self.TABLE}" for name in names))
        assert "no weight" not in message

    def test_copies_of_the_own_tables_change_nothing(self, peft, base, tmp_path):
        lora = self.adapted(peft, base, {"target_modules": ["q_proj"]})
        for name, embeddings in (("with", True), ("without", False)):
            lora.save_pretrained(tmp_path / name, save_embedding_layers=embeddings)
            merge = ("--merge-adapter", tmp_path / name)
            convert(base, tmp_path / f"{name}-out", "--to", "m2m100", *merge)
        held = load_file(tmp_path / "with" / "adapter_model.safetensors")
        assert "base_model.model.model.shared.weight" in held
        one, other = (load_file(tmp_path / f"{n}-out" / MODEL) for n in ("with", "without"))
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)

    def test_several_by_name(self, peft, base, tmp_path, capsys):
        lora = self.adapted(peft, base, {"target_modules": ["q_proj"]})
        lora.add_adapter("other", peft.LoraConfig(r=2, target_modules=["v_proj"]))
        lora.save_pretrained(tmp_path / "both")
        (tmp_path / "both" / "default").mkdir()
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (tmp_path / "both" / file).rename(tmp_path / "both" / "default" / file)
        merge = ("--merge-adapter", tmp_path / "both")
        words = f"{tmp_path / 'both'} holds adapters in folders: default, other; name one of them"
        says(fail(capsys, base, tmp_path / "no", "--to", "torch", *merge), words)
        says(fail(capsys, "inspect", tmp_path / "both"), words)
        wrapped = tmp_path / "wrapped"
        wrapped.mkdir()
        (wrapped / "config.json").write_text((base / "config.json").read_text())
        torch.save(lora.state_dict(), wrapped / "pytorch_model.bin")
        merge = ("--merge-adapter", tmp_path / "both" / "default")
        message = fail(capsys, wrapped, tmp_path / "no", "--to", "torch", *merge)
        says(message, "has 2 adapters beside the weights (default, other)", "--drop '*.other.*'")
        convert(wrapped, tmp_path / "one", "--to", "torch", *merge, "--drop", "*.other.*")
        convert(base, tmp_path / "two", "--to", "torch", *merge)
        one, two = (load_file(tmp_path / name / MODEL) for name in ("one", "two"))
        assert all(np.array_equal(one[name], two[name]) for name in one.keys() | two.keys())


def write_adapter(folder, tensors, **settings):
    """An adapter's folder under the names that PEFT gives its tensors."""
    folder.mkdir(exist_ok=True)
    named = {f"base_model.model.{name}": array for name, array in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors")
    usual = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "nllb"}
    (folder / "adapter_config.json").write_text(json.dumps(usual | settings))
    return folder


QUERY = "model.encoder.layers.0.self_attn.q_proj"
DRAW = np.random.default_rng(3)
PAIR = {
    f"{QUERY}.lora_A.weight": DRAW.normal(size=(2, 15)),
    f"{QUERY}.lora_B.weight": DRAW.normal(size=(15, 2)),
}


def test_the_product_is_added_and_said(base, tmp_path, capsys):
    adapter = write_adapter(tmp_path / "adapter", PAIR)
    convert(base, tmp_path / "out", "--to", "m2m100", "--merge-adapter", adapter)
    assert f"the adapter in {adapter} is merged into 1 weights" in capsys.readouterr().out
    before, after = load_file(base / MODEL), load_file(tmp_path / "out" / MODEL)
    product = PAIR[f"{QUERY}.lora_B.weight"] @ PAIR[f"{QUERY}.lora_A.weight"]
    assert np.array_equal(after[f"{QUERY}.weight"], before[f"{QUERY}.weight"] + 3 * product)
    others = before.keys() - {f"{QUERY}.weight"}
    assert all(np.array_equal(after[name], before[name]) for name in others)
    ledger = json.loads((tmp_path / "out" / "conversion.json").read_text())
    entry = ledger["targets"][f"{QUERY}.weight"]
    assert entry["what"] == "merged with the adapter" and len(entry["from"]) == 3


def test_half_precision_is_rounded_once(base, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", PAIR)
    convert(base, tmp_path / "half", "--to", "m2m100", "--dtype", "float16")
    convert(tmp_path / "half", tmp_path / "out", "--to", "m2m100", "--merge-adapter", adapter)
    before, after = load_file(tmp_path / "half" / MODEL), load_file(tmp_path / "out" / MODEL)
    product = PAIR[f"{QUERY}.lora_B.weight"] @ PAIR[f"{QUERY}.lora_A.weight"]
    exact = before[f"{QUERY}.weight"].astype(np.float64) + 3 * product
    assert np.array_equal(after[f"{QUERY}.weight"], exact.astype(np.float16))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only 'LORA' is merged"),
        ({"use_dora": True}, "use_dora is True"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes"),
        ({"lora_alpha": None}, "lora_alpha is None"),
    ],
)
def test_what_is_more_than_a_product(base, tmp_path, capsys, changes, words):
    adapter = write_adapter(tmp_path / "adapter", PAIR, **changes)
    error = fail(capsys, base, tmp_path / "out", "--to", "flax", "--merge-adapter", adapter)
    says(error, words)
    says(error, "PEFT merges it itself: merge_and_unload()")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({f"{QUERY}.lora_A.weight": np.ones((2, 15))}, f"{QUERY} has lora_A alone"),
        (PAIR | {f"{QUERY}.lora_magnitude_vector": np.ones(15)}, "lora_magnitude_vector: it is"),
        ({n.replace("q_proj", "query"): a for n, a in PAIR.items()}, "has no weight"),
        (PAIR | {"model.encoder.nothing.weight": np.ones(3)}, "is no weight of it"),
        (PAIR | {f"{QUERY}.lora_B.weight": np.ones((14, 2))}, "make no [15, 15]"),
        ({n.replace(QUERY, "model.shared"): a for n, a in PAIR.items()}, "one table in several"),
    ],
)
def test_an_adapter_that_does_not_fit(base, tmp_path, capsys, tensors, words):
    adapter = write_adapter(tmp_path / "adapter", tensors)
    says(fail(capsys, base, tmp_path / "out", "--to", "flax", "--merge-adapter", adapter), words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alpha_pattern": {"(": 3}}, "alpha_pattern has '(', which is no regular expression"),
        ({"r": 3}, "is of rank 2; adapter_config.json says 3"),
        ({"rank_pattern": {"q_proj": 5}}, "is of rank 2; adapter_config.json says 5"),
    ],
)
def test_settings_that_are_not_of_these_tensors(base, tmp_path, capsys, changes, words):
    adapter = write_adapter(tmp_path / "adapter", PAIR, **changes)
    merge = ("--merge-adapter", adapter)
    says(fail(capsys, base, tmp_path / "no", "--to", "torch", *merge), words)


def test_the_file_of_an_adapter_and_what_is_no_file_of_one(base, tmp_path, capsys):
    file = write_adapter(tmp_path / "adapter", PAIR) / "adapter_model.safetensors"
    convert(base, tmp_path / "one", "--to", "torch", "--merge-adapter", file)
    convert(base, tmp_path / "two", "--to", "torch", "--merge-adapter", file.parent)
    assert (tmp_path / "one" / MODEL).read_bytes() == (tmp_path / "two" / MODEL).read_bytes()
    capsys.readouterr()
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 31\n")
    merge = ("--merge-adapter", file.parent)
    says(fail(capsys, base, tmp_path / "no", "--to", "torch", *merge), "a pointer of git-lfs")


def test_an_adapter_alone_is_named(base, tmp_path, capsys):
    adapter = write_adapter(tmp_path / "adapter", PAIR)
    for source in (adapter, adapter / "adapter_model.safetensors"):
        error = fail(capsys, source, tmp_path / "out", "--to", "flax")
        says(error, "LORA adapter of 'nllb', no model", f"--merge-adapter {adapter}")
    error = fail(capsys, base, tmp_path / "out", "--to", "flax", "--merge-adapter", base)
    says(error, f"{base} has no adapter_config.json")


def test_flax_names_are_none_that_an_adapter_speaks_of(base, tmp_path, capsys):
    convert(base, tmp_path / "ours", "--to", "flax")
    adapter = write_adapter(tmp_path / "adapter", PAIR)
    capsys.readouterr()
    error = fail(
        capsys, tmp_path / "ours", tmp_path / "out", "--to", "torch", "--merge-adapter", adapter
    )
    says(error, "--merge-adapter is for PyTorch names", "has Flax names")


def test_kinds_that_change_no_weight_are_not_sent_to_a_merge(base, tmp_path, capsys):
    adapter = write_adapter(tmp_path / "adapter", {"prompt": np.ones((3, 15))},
                            peft_type="PROMPT_TUNING", lora_alpha=None)  # fmt: skip
    given = (base, tmp_path / "out", "--to", "flax", "--merge-adapter")
    for arguments in ((adapter, *given[1:4]), (*given, adapter)):
        error = fail(capsys, *arguments)
        says(error, "PROMPT_TUNING")
        says(error, "nothing merges it")
        assert "--merge-adapter" not in error and "lora_alpha" not in error
        assert "merge_and_unload" not in error
