"""A trained model of the PyPI package annalog (MIT): its module is bentrevett's, for molecules.

The package is no dependency: ``pip install --no-deps annalog`` lets this test run.
"""

import importlib
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

if find_spec("annalog") is None:
    pytest.skip("annalog is not installed (pip install --no-deps annalog)", allow_module_level=True)

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

from family_checks import assert_same_logits, batch, import_source, source_of  # noqa: E402

import flax_transformer  # noqa: E402
import torch_transformer  # noqa: E402
from convert import ConversionRequest, convert  # noqa: E402
from convert.families.registry import recognize  # noqa: E402
from flax_transformer.decoding import decode as flax_decode  # noqa: E402
from torch_transformer.decoding import decode as torch_decode  # noqa: E402
from training_recipe.searching.search import Search  # noqa: E402

TOKENS = {"unk_id": 0, "pad_id": 1, "bos_id": 2, "eos_id": 3}
FLAGS = {"num_heads": 8, **TOKENS}
MOLECULES = ("CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "c1ccccc1")
LONGEST = 40


@pytest.fixture(scope="module")
def folder() -> Path:
    spec = find_spec("annalog")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


@pytest.fixture(scope="module")
def file(folder) -> Path:
    return next((folder / "ckpt_and_vocab").glob("*.pt"))


@pytest.fixture(scope="module")
def parts(folder) -> ModuleType:
    """Its files of the model, without the chemistry that the package imports beside them."""
    package = ModuleType("annalog_files")
    package.__path__ = [str(folder / "model_files")]
    sys.modules["annalog_files"] = package
    yield importlib.import_module("annalog_files.seq2seq_attention")
    for name in [name for name in sys.modules if name.startswith("annalog_files")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def module(parts, file):
    """Its own module with the trained weights, of the sizes that its handler has."""
    state = torch.load(file, map_location="cpu")
    words, width = state["encoder.tok_embedding.weight"].shape
    rows, inner = len(state["encoder.pos_embedding.weight"]), 512
    sizes = (words, width, 3, FLAGS["num_heads"], inner, 0.1, torch.device("cpu"), rows)
    halves = parts.Encoder(*sizes), parts.Decoder(*sizes)
    whole = parts.Seq2Seq(*halves, TOKENS["pad_id"], TOKENS["pad_id"], torch.device("cpu"))
    whole.load_state_dict(state)
    return whole.eval()


@pytest.mark.usefixtures("float64")
def test_both_twins_compute_what_its_own_module_computes(module):
    source = source_of(module.state_dict(), flags=FLAGS)
    family = recognize(source)
    assert family.name == "bentrevett-seq2seq"
    config, canonical = import_source(family, source)
    ids = batch(config, B=4, S=30, T=23)
    with torch.no_grad():
        expected = module.double()(*map(torch.from_numpy, ids))[0].numpy()
    module.float()
    assert_same_logits(family, config, canonical, *ids, expected)


def test_its_file_there_and_back(module, file, tmp_path):
    convert(ConversionRequest(file, tmp_path / "ours", to="flax", fields=FLAGS))
    convert(ConversionRequest(tmp_path / "ours", tmp_path / "theirs", to="bentrevett-seq2seq"))
    back = torch.load(tmp_path / "theirs" / "model.pt", map_location="cpu")
    module.load_state_dict(back, strict=True)
    for name, tensor in torch.load(file, map_location="cpu").items():
        assert back[name].numpy().tobytes() == tensor.numpy().tobytes(), name


def test_greedy_outputs_are_those_of_its_own_module(module, parts, folder, file, tmp_path):
    """Real molecules: both twins write what its module writes, token by token."""
    source = ids_of(parts, next((folder / "ckpt_and_vocab").glob("*.pkl")))
    expected = greedy(module, torch.from_numpy(source))
    convert(ConversionRequest(file, tmp_path / "ours", to="torch", fields=FLAGS))
    search = Search(max_length=LONGEST)
    ours = torch_transformer.load(tmp_path / "ours")
    theirs = flax_transformer.load(tmp_path / "ours")
    for found in (torch_decode(ours, source, search), flax_decode(theirs, source, search)):
        assert [row[0].ids for row in found] == expected
    assert all(len(tokens) > 5 for tokens in expected)


def ids_of(parts, vocabulary: Path) -> np.ndarray:
    """Molecules as its handler makes them numbers: a beginning, tokens and an end."""
    known = pickle.loads(vocabulary.read_bytes())["stoi"]
    tokenize = parts.vocabulary.SMILESTokenizer().tokenize
    rows = [["<sos>", *tokenize(molecule), "<eos>"] for molecule in MOLECULES]
    longest = max(map(len, rows))
    padded = [row + ["<pad>"] * (longest - len(row)) for row in rows]
    return np.array([[known.get(token, TOKENS["unk_id"]) for token in row] for row in padded])


@torch.no_grad()
def greedy(module, source) -> list[list[int]]:
    """The likeliest next token until the end, whole sequences each time."""
    target = torch.full((len(source), 1), TOKENS["bos_id"])
    for _ in range(LONGEST):
        logits = module(source, target)[0][:, -1]
        # What our search never writes: padding, and what begins a sequence.
        logits[:, [TOKENS["pad_id"], TOKENS["bos_id"]]] = -torch.inf
        target = torch.cat([target, logits.argmax(-1, keepdim=True)], 1)
    rows = target[:, 1:].tolist()
    ends = [row.index(TOKENS["eos_id"]) if TOKENS["eos_id"] in row else LONGEST for row in rows]
    return [row[:end] for row, end in zip(rows, ends, strict=True)]
