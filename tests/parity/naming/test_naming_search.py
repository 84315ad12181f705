"""The search: tables of modules whose names say nothing, and why there is none."""

import argparse
import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from messages import saying, says

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parents[1] / "convert" / "naming")]

import published  # noqa: E402
from parity_cases import failed  # noqa: E402
from shuffling import Shuffled  # noqa: E402
from subjects import FLAX, TORCH, subject  # noqa: E402

from convert.__main__ import main as convert_main  # noqa: E402
from convert.naming.parsing import parse_table  # noqa: E402
from parity.__main__ import main  # noqa: E402
from parity.commands.names import as_text  # noqa: E402
from parity.naming.patterns import patterns_of, units_of  # noqa: E402
from parity.naming.probes import Probes  # noqa: E402
from parity.naming.roles import RoleFinder  # noqa: E402
from parity.naming.search import check_tensors, search  # noqa: E402
from parity.naming.subject import TorchSubject, subject_of  # noqa: E402
from transformer_spec import UserError  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
]


def held(given):
    return {name: array.astype(np.float32) for name, array in given.held.items()}


def searched(name: str, seed: int):
    given = subject(name)
    given = Shuffled(given, seed) if seed else given
    return search(held(given), given, f"{name}.pt"), given


def assert_found(name: str, seed: int) -> dict:
    found, given = searched(name, seed)
    assert found.report.same and found.report.agreement.max_abs < 1e-11 * 100
    table = parse_table(found.proposal.text, "found")
    assert {*table.buffers} <= {*given.shapes}
    return dict(table.config)


def test_a_table_under_names_that_say_nothing():
    """One block for all heads, biases after attention alone, positions learned, padding 1."""
    config = assert_found("AladdinpersonAtFirst", 3)
    expected = {
        "norm_position": "post", "activation": "relu", "embedding_scale": 1.0, "num_heads": 3,
        "norm_epsilon": 1e-5, "attention_scale": "1/sqrt(D)", "pad_id": 1,
    }  # fmt: skip
    assert expected.items() <= config.items()


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", [*TORCH, *(name for name in FLAX if name != "fused in flax")])
def test_every_published_module(name, seed):
    assert_found(name, seed)


MODULE = """
import sys
sys.path.insert(0, {folder!r})
import published
class Mine(published.{base}):
    {body}
def make():
    return published.made(Mine)
"""


def files(folder: Path, base: str, body: str = "pass", place: str = "m.pt") -> tuple[str, str]:
    """A module's file and its state, as a user has them."""
    code = MODULE.format(folder=str(Path(published.__file__).parent), base=base, body=body)
    (folder / "mine.py").write_text(textwrap.dedent(code))
    scope = {}
    exec(code, scope)
    torch.save(scope["make"]().float().state_dict(), folder / place)
    return str(folder / place), f"{folder / 'mine.py'}:make"


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    return files(tmp_path_factory.mktemp("small"), "AladdinpersonAtFirst")


def test_the_command_writes_a_table(mine, tmp_path, capsys):
    """From the command of conversions, and into a conversion."""
    checkpoint, module = mine
    place = tmp_path / "table.toml"
    arguments = ["names", checkpoint, "--module", module, "--num-heads", "3", "--pad-id", "1"]
    assert main([*arguments, "--output", str(place)]) == 0
    says(capsys.readouterr().out, str(place), "found by comparison", "same function")
    assert "# found by comparison" in place.read_text()
    converted = [checkpoint, str(tmp_path / "ours"), "--to", "flax", "--names", str(place)]
    assert convert_main(converted) == 0
    capsys.readouterr()
    sides = [f"module:{module}", str(tmp_path / "ours"), "--json", "--no-gradients"]
    assert main([*sides, "--precision", "--length", "9"]) == 0
    assert json.loads(capsys.readouterr().out)["same"]


def test_the_command_says_all_faults_at_once(tmp_path, capsys):
    (tmp_path / "there.toml").write_text("")
    error = failed(
        capsys, "names", tmp_path / "none.pt", "--module", "x.py:make", "--num-heads", 0,
        "--pad-id", -1, "--output", tmp_path / "there.toml",
    )  # fmt: skip
    for said in ("none.pt does not exist", "--num-heads is 0", "--pad-id is -1", "there already"):
        assert said in error


def test_convert_names_hands_over(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr("subprocess.call", lambda words: called.append(words) or 7)
    with pytest.raises(SystemExit) as ended:
        convert_main(["names", "m.pt", "--module", "f.py:make", "--pad-id", "1"])
    assert ended.value.code == 7
    assert called == [[sys.executable, "-m", "parity", "names", "m.pt", "--module", "f.py:make",
                       "--pad-id", "1"]]  # fmt: skip


NO_MODEL = {
    "another activation": (
        "AladdinpersonAtFirst",
        "def at(self, path):\n"
        "        found = super().at(path)\n"
        "        return (lambda x: found(x).tanh()) if path.endswith('feed_forward.0') else found",
        ("decoder feed-forward departs first", "the same until then", "output"),
    ),
    "another position": (
        "Published",
        "def added(self, at, length):\n        return super().added(at, length) * 0.5",
        ("decoder embeddings, norms and the output departs first",),
    ),
    "no cross-attention": (
        "Published",
        'attentions = (("self_attention",), ("self_attention",))\n'
        '    norms = (("norm1", "norm2"), ("norm1", "norm2"))',
        ("no tensor is encoder.embedding",),
    ),
}


LONG = "another position"


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.thorough) if k == LONG else k for k in NO_MODEL]
)
def test_a_module_of_no_such_kind(kind):
    base, body, said = NO_MODEL[kind]
    scope = {"published": published}
    exec(f"class Mine(published.{base}):\n    {body}", scope)
    given = TorchSubject("mine.py", published.made(scope["Mine"]))
    with pytest.raises(UserError, check=saying(*said)):
        search(held(given), given, "m.pt", heads=3, pad_id=1)


@pytest.mark.thorough
def test_layers_that_run_from_the_last_to_the_first():
    class Turned(published.AladdinpersonAtFirst):
        """The names of the decoder's layers count down."""

        def at(self, path):
            parts = path.split(".")
            if path.startswith("decoder.layers."):
                parts[2] = str(published.LAYERS["decoder"] - 1 - int(parts[2]))
            return super().at(".".join(parts))

    given = TorchSubject("mine.py", published.made(Turned))
    with pytest.raises(
        UserError, check=saying("layers", "from the last number to the first", "rename")
    ):
        search(held(given), given, "m.pt", heads=3, pad_id=1)


def test_a_file_of_another_module():
    given = subject("D2L")
    tensors = held(given)
    tensors["own"] = tensors.pop("decoder.dense.bias")
    tensors["decoder.dense.weight"] = tensors["decoder.dense.weight"][1:]
    with pytest.raises(UserError) as error:
        check_tensors(tensors, given, "m.pt")
    assert len(error.value.faults) == 3
    says(error.value.faults, "own", "in the file and not in the module")
    says(error.value.faults, "decoder.dense.weight", "[18, 12]", "[19, 12]")


def test_a_function_whose_weights_cannot_be_set():
    with pytest.raises(UserError, check=saying("weights cannot be set", "params")):
        subject_of("mine.py", lambda source, target: source)


def test_roles_are_found_whatever_the_names():
    """Tables, halves, attentions and norms, by what changes logits alone."""
    given = Shuffled(subject("Annotated"), 5)
    roles = RoleFinder(Probes(given, 0)).find()

    def old(units):
        return [given.old[unit.weight.names[0]].rsplit(".", 1)[0] for unit in units]

    assert roles.norm_position == "pre"
    assert old(roles.decoder.norms) == [f"decoder.layers.0.sublayer.{i}.norm" for i in range(3)]
    assert old(roles.encoder.norms) == [f"encoder.layers.0.sublayer.{i}.norm" for i in range(2)]
    own, cross = roles.decoder.attentions
    assert set(old(cross.scores)) == {f"decoder.layers.0.src_attn.linears.{i}" for i in (0, 1)}
    assert set(old(own.values)) == {f"decoder.layers.0.self_attn.linears.{i}" for i in (2, 3)}
    assert given.old[roles.table("encoder.embedding")] == "src_embed.0.lut.weight"
    assert roles.decoder.final_norm and roles.decoder.embedding_norm is None
    assert {given.old[name] for name in roles.unused} == {"src_embed.1.pe", "tgt_embed.1.pe"}


class Fused(published.Published):
    """Keys and values in one matrix of the shape that the feed-forward's have."""

    projections = "q", "kv", "o"
    inner = 2 * published.D

    def place(self, path, module):
        wide = torch.nn.Linear(published.D, self.inner)
        back = torch.nn.Linear(self.inner, published.D)
        super().place(path, {"ffn.0": wide, "ffn.1": back}.get(path[-5:], module))

    def build_attention(self, prefix):
        for name, parts in zip(self.projections, (1, 2, 1), strict=True):
            self.place(f"{prefix}.{name}", torch.nn.Linear(published.D, parts * published.D))

    def attention(self, path, x, keys, seen):
        q, kv, out = (self.at(f"{path}.{name}") for name in self.projections)
        return out(published.attend(q(x), *kv(keys).chunk(2, -1), seen, self.factor))


class Gated(Fused):
    """In which a second pair of matrices gives what it gave with both signs turned."""

    def place(self, path, module):
        super().place(path, module)
        if path.endswith("ffn.0"):
            self.place(f"{path}_side", torch.nn.Linear(published.D, self.inner))

    def feed(self, one, two, x):
        return self.at(two)(self.at(one)(x).relu() * self.at(f"{one}_side")(x))


@pytest.mark.parametrize(("kind", "count", "seed"), [(Fused, 2, 1), (Gated, 3, 1), (Gated, 3, 3)])
def test_values_that_have_the_shape_of_the_feed_forward(kind, count, seed):
    given = Shuffled(subject_of("mine", published.made(kind)), seed)
    half = RoleFinder(Probes(given, 0)).find().encoder
    names = [given.old[unit.weight.names[0]] for unit in half.ffn]
    assert len(names) == count and all(".ffn." in name for name in names)
    (attention,) = half.attentions
    assert len(attention.scores) == 1 and len(attention.values) == 2


class Waves(Fused):
    """With a stored table of sinusoids that float32 rounded, which the encoder reads."""

    buffers = ("waves",)

    def added(self, at, length):
        return super().added(at, length) if at else self.get_buffer("waves")[0, :length]


class WavesInBoth(Waves):
    def added(self, at, length):
        return super().added(0, length)


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        (Fused, ""),
        (Waves, " --encoder-positions frozen"),
        (WavesInBoth, " --encoder-positions frozen --decoder-positions frozen"),
    ],
)
def test_what_a_conversion_is_told_that_keeps_rounded_sinusoids(kind, flags):
    """Without these flags the next command gives a model that is not the same function."""
    given = Shuffled(subject_of("mine", published.made(kind)), 1)
    found = search(held(given), given, "m.pt", heads=3, pad_id=1)
    assert found.report.same
    said = as_text(found, argparse.Namespace(output=Path("t.toml"), checkpoint=Path("m.pt")))
    assert said.endswith(f"m.pt CONVERTED --to flax --names t.toml{flags}")
    assert ("rounded sinusoids" in found.proposal.text) == bool(flags)
    assert f"{flags[1:]} to keep these" in found.proposal.text or not flags


@pytest.mark.parametrize("tied", [False, True])
def test_tables_that_begin_alike_and_are_two_in_the_module(tied):
    """No comparison shows whether they are one: the module does."""
    module = published.made(published.TranslationTutorial)
    table = module.tgt_tok_emb["embedding"].weight
    module.generator.weight = table if tied else torch.nn.Parameter(table.detach().clone())
    given = subject_of("the tutorial's", module)
    found = search(held(given), given, "m.pt")
    config = parse_table(found.proposal.text, "found").config
    assert config.get("tied_embeddings", "none") == ("target_output" if tied else "none")


def test_patterns_of_names():
    shapes = {
        f"top.{half}.{i + 1}.linears.{k}.weight": (4, 4)
        for half, count in (("a", 1), ("b", 2))
        for i in range(count)
        for k in range(4)
    }
    shapes |= {"emb.0.lut": (9, 4), "emb.1.pe": (1, 9, 4), "block2_w": (4, 4), "block2_b": (4,)}
    found = patterns_of(shapes)
    texts = [pattern.text for pattern in found]
    assert texts[0] == "top.a.{i+1}.linears.0.weight" and texts[4] == "top.b.{i+1}.linears.0.weight"
    assert found[4].names == ("top.b.1.linears.0.weight", "top.b.2.linears.0.weight")
    assert texts[8:] == ["emb.0.lut", "emb.1.pe", "block2_w", "block2_b"]
    assert [unit.weight.text for unit in units_of(found)][:2] == texts[:2]


CAUSAL = """def walk(self, at, ids, seen, *memory):
        ahead = published.torch.ones(ids.shape[1], ids.shape[1], dtype=bool).tril()
        return super().walk(at, ids, ahead if at else seen, *memory)"""


def test_a_decoder_that_sees_padding_in_front_of_tokens(tmp_path, capsys):
    """A look-ahead mask alone: found and proved with padding behind tokens, which is said."""
    checkpoint, module = files(tmp_path, "AladdinpersonAtFirst", CAUSAL)
    place = tmp_path / "table.toml"
    known = ["--num-heads", "3", "--pad-id", str(published.PAD), "--output", str(place)]
    assert main(["names", checkpoint, "--module", module, *known]) == 0
    says(capsys.readouterr().out, "same function, with padding behind tokens alone")
    says(place.read_text(), "CONVERTED --padding behind")
    ours = str(tmp_path / "ours")
    assert convert_main([checkpoint, ours, "--to", "flax", "--names", str(place)]) == 0
    sides = [f"module:{module}", ours, "--no-gradients", "--precision", "--length", "9"]
    assert main(sides) == 1
    says(capsys.readouterr().out, "explains all of it: padding in front of tokens", "--padding")
    assert main([*sides, "--padding", "behind"]) == 0


ONE_MODULE = """def build_attention(self, prefix):
        super().build_attention(prefix)
        kept, more = (f"{{prefix}}.{{self.projections[k]}}" for k in {pair})
        self.place(more, self.get_submodule(kept))"""


@pytest.mark.parametrize("pair", [(0, 1), (1, 2)], ids=["queries and keys", "keys and values"])
def test_a_weight_that_has_two_names(pair, tmp_path, capsys):
    """One matrix for queries and keys, or keys and values: two here, which is said."""
    checkpoint, module = files(tmp_path, "Annotated", ONE_MODULE.format(pair=pair))
    place = tmp_path / "table.toml"
    known = ["--num-heads", "3", "--pad-id", str(published.PAD), "--output", str(place)]
    assert main(["names", checkpoint, "--module", module, *known]) == 0
    says(capsys.readouterr().out, "same function")
    says(place.read_text(), "one weight in the module and several here, which train apart")
    ours = str(tmp_path / "ours")
    assert convert_main([checkpoint, ours, "--to", "torch", "--names", str(place)]) == 0
    sides = [f"module:{module}", ours, "--no-gradients", "--precision", "--length", "9"]
    assert main(sides) == 0


def test_a_weight_that_has_one_name_and_two_uses(tmp_path, capsys):
    body = 'projections = ("linears.0", "linears.0", "linears.2", "linears.3")'
    checkpoint, module = files(tmp_path, "Annotated", body)
    error = failed(capsys, "names", checkpoint, "--module", module, "--num-heads", 3)
    says(error, "no encoder-decoder of this kind", "queries, keys", "linears.0 [12, 12]")
    says(error, "a matrix that serves as two of them", "a copy", "train apart")


@pytest.mark.parametrize("kind", ["log_softmax", "softmax"])
def test_a_module_that_returns_probabilities(kind, tmp_path, capsys):
    body = f"""def forward(self, source, target):
        return super().forward(source, target).{kind}(-1)"""
    checkpoint, module = files(tmp_path, "Annotated", body)
    error = failed(capsys, "names", checkpoint, "--module", module, "--num-heads", 3)
    says(error, module, "probabilities", "up to 1", f"let it return what it gives to {kind}")
    assert "no tensor is" not in error


class Windowed(published.Annotated):
    """As the Annotated Transformer, but that long texts have other logits."""

    def forward(self, source, target):
        return super().forward(source, target) * (1 + (source.shape[1] > 14))


class Noisy(published.Annotated):
    """As the Annotated Transformer, with noise."""

    def forward(self, source, target):
        return super().forward(source, target) + torch.randn(1) * 1e-3


@pytest.mark.parametrize(
    ("kind", "told"),
    [(Windowed, "the same function up to 12 tokens, and not with more"), (Noisy, "called again")],
)
def test_what_shows_late_or_at_random(kind, told):
    given = subject_of("late", published.made(kind))
    with pytest.raises(UserError, match=told):
        search(held(given), given, "late.pt")
