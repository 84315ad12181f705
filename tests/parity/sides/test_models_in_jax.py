"""The other way: weights of ours under the names of a module in JAX, loaded by its own code."""

import dataclasses
import textwrap

import pytest
from parity_cases import TINY, random_weights, write

pytest.importorskip("torch")
pytest.importorskip("jax")

from convert import ConversionRequest, convert  # noqa: E402
from parity.__main__ import main  # noqa: E402
from parity.comparison.comparison import compare  # noqa: E402
from parity.comparison.settings import Settings  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64")
CONFIG = dataclasses.replace(
    TINY, encoder_positions="learned", decoder_positions="learned", num_decoder_layers=1
)
TABLE = """
name = "mine"
containers = ["safetensors"]
[config]
norm_position = "post"
norm_epsilon = 1e-5
activation = "relu"
embedding_scale = "sqrt(D)"
pad_id = 1
[leaves]
linear = { weight = "kernel", layout = "(in, out)" }
norm = { weight = "scale" }
embedding = { weight = "table" }
[names]
"words.0" = "encoder.embedding"
"words.1" = "decoder.embedding"
"places.0" = "encoder.pos_embedding"
"places.1" = "decoder.pos_embedding"
"out" = "decoder.finalFc"
"""
LAYERS = {
    "reader{i}": ("encoder.enc_layers.{i}", {"own": "multiheadattention"}),
    "writer{i}": (
        "decoder.dec_layers.{i}",
        {"own": "multiheadattention1", "other": "multiheadattention2"},
    ),
}
KERNELS = {
    "q": ("fcQ", "(in, heads, dim)"),
    "k": ("fcK", "(in, heads, dim)"),
    "v": ("fcV", "(in, heads, dim)"),
    "o": ("fcOut", "(heads, dim, out)"),
}


def table() -> str:
    lines = [TABLE]
    for theirs, (ours, attentions) in LAYERS.items():
        for name, attention in attentions.items():
            for part, (whole, layout) in KERNELS.items():
                target = f'to = "{ours}.{attention}.{whole}", layout = "{layout}"'
                lines.append(f'"{theirs}.{name}.{part}" = {{ {target} }}')
        lines += [f'"{theirs}.wide" = "{ours}.ffn.fc1"', f'"{theirs}.back" = "{ours}.ffn.fc2"']
        norms = range(len(attentions) + 1)
        lines += [f'"{theirs}.norms.{k}" = "{ours}.layerNorm{k + 1}"' for k in norms]
    return "\n".join(lines)


# What every form of the module computes; ``w`` gives a tensor by its name.
FUNCTION = """
import jax, jax.numpy as jnp
from flax import nnx
from safetensors.numpy import load_file
FILE = {file!r}
def norm(w, name, x):
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    return x * w(name + ".scale") + w(name + ".bias")
def attend(w, name, x, keys, seen):
    def heads(part, y):
        kernel, bias = w(f"{{name}}.{{part}}.kernel"), w(f"{{name}}.{{part}}.bias")
        return jnp.einsum("bld,dha->blha", y, kernel) + bias
    q, k, v = heads("q", x), heads("k", keys), heads("v", keys)
    scores = jnp.einsum("bqha,bkha->bhqk", q, k) / q.shape[-1] ** 0.5
    share = jax.nn.softmax(jnp.where(seen, scores, -1e30), -1)
    mixed = jnp.einsum("bhqk,bkha->bqha", share, v)
    return jnp.einsum("bqha,had->bqd", mixed, w(name + ".o.kernel")) + w(name + ".o.bias")
def layer(w, name, x, seen, *memory):
    x = norm(w, name + ".norms.0", x + attend(w, name + ".own", x, x, seen))
    if memory:
        x = norm(w, name + ".norms.1", x + attend(w, name + ".other", x, *memory))
    wide = jax.nn.relu(x @ w(name + ".wide.kernel") + w(name + ".wide.bias"))
    last = f"{{name}}.norms.{{1 + bool(memory)}}"
    return norm(w, last, x + wide @ w(name + ".back.kernel") + w(name + ".back.bias"))
def embed(w, half, ids):
    table = w(f"words.{{half}}.table")
    return table[ids] * table.shape[1] ** 0.5 + w(f"places.{{half}}.table")[: ids.shape[1]]
def logits(w, source, target):
    seen = (source != 1)[:, None, None]
    ahead = jnp.tril(jnp.ones((target.shape[1],) * 2, bool)) & (target != 1)[:, None, None]
    memory = layer(w, "reader0", embed(w, 0, source), seen)
    x = layer(w, "writer0", embed(w, 1, target), ahead, memory, seen)
    return x @ w("out.kernel") + w("out.bias")
class Module(nnx.Module):
    def __init__(self, shapes):
        self.held = nnx.data({{name: nnx.Param(jnp.zeros(s)) for name, s in shapes.items()}})
    def __call__(self, source, target):
        return logits(lambda name: self.held[name][...], source, target)
@jax.tree_util.register_pytree_node_class
class Tree:
    def __init__(self, held): self.held = held
    def __call__(self, source, target): return logits(self.held.__getitem__, source, target)
    def tree_flatten(self): return (self.held,), None
    @classmethod
    def tree_unflatten(cls, aux, leaves): return cls(*leaves)
def module():
    weights = load_file(FILE)
    model = Module({{name: array.shape for name, array in weights.items()}})
    for name, array in weights.items():
        model.held[name][...] = jnp.asarray(array)
    return model
def tree():
    return Tree(load_file(FILE))
def function():
    return lambda weights, *ids: logits(weights.__getitem__, *ids), load_file(FILE)
"""


@pytest.fixture(scope="module")
def ours_and_theirs(tmp_path_factory):
    """A folder of ours, and the file of a module in JAX that loads its weights."""
    folder = tmp_path_factory.mktemp("jax")
    weights = {name: array.astype("float32") for name, array in random_weights(CONFIG).items()}
    ours = write(folder / "ours", CONFIG, weights)
    (folder / "mine.toml").write_text(table())
    to = f"names:{folder / 'mine.toml'}"
    convert(ConversionRequest(ours, folder / "theirs", to=to, container="safetensors"))
    (file,) = (folder / "theirs").glob("*.safetensors")
    (folder / "mine.py").write_text(textwrap.dedent(FUNCTION.format(file=str(file))))
    return ours, folder / "mine.py"


@pytest.mark.parametrize("kind", ["module", "tree", "function"])
def test_weights_of_ours_in_a_model_in_jax(kind, ours_and_theirs):
    """Loaded by its own code, and equal in float64 on padded texts."""
    ours, code = ours_and_theirs
    settings = Settings((), gradients=False, explain=False)
    report = compare(f"module:{code}:{kind}", str(ours), settings)
    assert report.same, report.verdict
    assert report.a.framework == "jax" and report.agreement.max_abs < 1e-11


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["tree", "function"])
def test_its_table_is_found_by_the_search(kind, ours_and_theirs, capsys):
    """Kernels with an axis for heads tell how many there are."""
    ours, code = ours_and_theirs
    (file,) = (ours.parent / "theirs").glob("*.safetensors")
    assert main(["names", str(file), "--module", f"{code}:{kind}"]) == 0
    found = capsys.readouterr().out
    assert 'layout = "(in, heads, dim)"' in found and "pad_id = 1" in found
    assert '"reader{i}.own.q"' in found or '"reader{i}.own.q.kernel"' in found
