"""Code of the user's own: what it may return, and one line for whatever it does wrong."""

import json
import textwrap

import numpy as np
import pytest
from messages import saying, says
from parity_cases import TINY, failed, random_weights, write

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

from parity.__main__ import main  # noqa: E402
from parity.forward.ids import generated  # noqa: E402
from parity.forward.substeps import LOGITS  # noqa: E402
from parity.sides.opening import open_side, open_sides  # noqa: E402
from parity.sides.own_code import SECONDS  # noqa: E402
from transformer_spec import UserError  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64")
TABLES = """
import torch
from torch import nn
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.source, self.target = nn.Embedding(17, 12), nn.Embedding(19, 12)
        self.out, self.rate = nn.Linear(12, 19), nn.Dropout(0.5)
    def forward(self, source, target):
        x = self.target(target) + self.source(source).mean(1, keepdim=True)
        return self.out(self.rate(x))
"""


def given(folder, text: str) -> str:
    (folder / "mine.py").write_text(textwrap.dedent(text))
    return f"module:{folder / 'mine.py'}:make"


def logits(side) -> np.ndarray:
    return side.trace(generated(TINY)[0], "float64")[LOGITS]


MAKES = {
    "raises": ("make = lambda: {}['key']", ("make() raised KeyError", "key", "line 1")),
    "exits": ("import sys\ndef make(): sys.exit(3)", ("sys.exit(3)",)),
    "at import": ("import sys\nsys.exit('no')", ("importing it", "sys.exit('no')")),
    "is no Python": ("def make(:\n    pass", ("no Python", "line 1")),
    "hangs": ("import time\ndef make(): time.sleep(60)", ("longer than 0.5 s", "--module-timeout")),
    "spins": ("def make():\n    while True: pass", ("longer than 0.5 s",)),
    "needs arguments": ("def make(size, *, depth=2): ...", ("make(size, *, depth=2)", "arguments")),
    "returns nothing": ("def make(): ...", ("returned NoneType", "model")),
    "no function": ("made = 1", ("no function 'make'",)),
    "no config": ("make = lambda: (lambda s, t: s)", ("returned no config", "(model, config)")),
    "wrong config": ("make = lambda: (lambda s, t: s, {'width': 3})", ("unknown key 'width'",)),
    "another each time": (TABLES.replace("torch.manual_seed(0)", "torch.seed()")
                          + "make = Model", ("other weights each time", "trains")),
}  # fmt: skip


@pytest.mark.parametrize("kind", MAKES)
def test_what_a_file_does_is_one_line(kind, tmp_path):
    text, said = MAKES[kind]
    token = SECONDS.set(0.5 if kind in ("hangs", "spins") else 60.0)
    try:
        with pytest.raises(UserError, check=saying(*said)) as error:
            open_side(given(tmp_path, text))
    finally:
        SECONDS.reset(token)
    assert "mine.py" in str(error.value)
    assert kind == "wrong config" or "\n" not in str(error.value)


CALLS = {
    "another shape": ("lambda s, t: t[..., None] * 1.0", ("returned [6, 6, 1]", "should be")),
    "no array": ("lambda s, t: {'logits': t}", ("returned dict",)),
    "an error": ("lambda s, t: s @ t", ("calling the model raised",)),
    "an exit": ("lambda s, t: exit(1)", ("calling the model ended the program",)),
    "float32": (
        "lambda s, t: __import__('numpy').zeros((6, 6, 19), 'f4')",
        ("computes in float32", "(function, weights)"),
    ),
}


@pytest.mark.parametrize("kind", CALLS)
def test_what_a_call_does_is_one_line(kind, tmp_path):
    call, said = CALLS[kind]
    side = open_side(given(tmp_path, f"make = lambda: {call}"), config=TINY)
    with pytest.raises(UserError, check=saying("mine.py", *said)):
        logits(side)


def test_a_module_that_is_not_the_same_twice(tmp_path):
    always = TABLES.replace("self.rate(x)", "nn.functional.dropout(x, 0.5, True)")
    with pytest.raises(UserError, check=saying("other logits when called again", "eval()")):
        logits(open_side(given(tmp_path, always + "make = Model"), config=TINY))
    learns = TABLES.replace("        x = ", "        self.out.weight.data += 1\n        x = ")
    with pytest.raises(UserError, check=saying("changes its weights when it is called")):
        logits(open_side(given(tmp_path, learns + "make = Model"), config=TINY))


def test_a_module_in_training_mode_is_evaluated(tmp_path):
    found = logits(open_side(given(tmp_path, TABLES + "make = Model"), config=TINY))
    assert found.shape == (6, 6, 19) and np.isfinite(found).all()


def test_a_module_with_numbers_of_its_own_is_left_out_of_narrow_formats(tmp_path):
    own = TABLES.replace("self.out,", "self.own = torch.ones(12)\n        self.out,")
    own = own.replace("self.rate(x)", "self.rate(x + self.own)")
    side = open_side(given(tmp_path, own + "make = Model"), config=TINY)
    assert logits(side).any()
    assert side.trace(generated(TINY)[0], "bfloat16") == {}


JAX = """
import jax, jax.numpy as jnp
from flax import nnx
W = jax.random.normal(jax.random.key(0), (19, 12), jnp.float32)
class Module(nnx.Module):
    def __init__(self): self.table = nnx.Param(W)
    def __call__(self, source, target): return self.table[...][target] @ self.table[...].T
@jax.tree_util.register_pytree_node_class
class Tree:
    def __init__(self, table): self.table = table
    def __call__(self, source, target): return self.table[target] @ self.table.T
    def tree_flatten(self): return (self.table,), None
    @classmethod
    def tree_unflatten(cls, aux, leaves): return cls(*leaves)
def function(source, target): return Tree(W.astype(jnp.float64))(source, target)
def of_weights(weights, source, target): return Tree(weights["table"])(source, target)
"""
KINDS = {
    "module": "Module()",
    "tree": "Tree(W)",
    "function": "function",
    "weights apart": "(of_weights, {'table': W})",
    "with a config": "(of_weights, {'table': W}, CONFIG)",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_jax_calls_is_computed_in_float64(kind, tmp_path):
    config = None if kind == "with a config" else TINY
    made = KINDS[kind].replace("CONFIG", repr(TINY.to_dict()))
    found = logits(open_side(given(tmp_path, f"{JAX}\nmake = lambda: {made}"), config=config))
    table = np.asarray(jax.random.normal(jax.random.key(0), (19, 12), np.float32), np.float64)
    target = generated(TINY)[0].target
    np.testing.assert_allclose(found, table[target] @ table.T, rtol=0, atol=1e-13)


def test_a_model_alone_has_the_config_of_the_other_side(tmp_path):
    folder = write(tmp_path / "ours", TINY, random_weights(TINY))
    code = given(tmp_path, "def make(): return lambda source, target: None")
    a, b = open_sides(code, str(folder), (None, None))
    assert a.config == b.config == TINY
    with pytest.raises(UserError, check=saying("A", "returned no config")):
        open_sides(code, code, (None, None))


def test_what_code_prints_spoils_no_output(tmp_path, capsys):
    folder = write(tmp_path / "ours", TINY, random_weights(TINY))
    code = given(
        tmp_path,
        f"""
        import torch_transformer
        print("loading")
        def make():
            print("made\\nand more")
            model = torch_transformer.load({str(folder)!r}).train()
            return lambda s, t: model.eval()(*map(torch_of, (s, t))).detach().numpy() * 1.0
        def torch_of(ids):
            import numpy, torch
            return torch.from_numpy(numpy.asarray(ids, numpy.int64))
        """,
    )
    arguments = [code, str(folder), "--json", "--no-gradients", "--precision", "--no-explain"]
    main(arguments)
    output = capsys.readouterr()
    assert json.loads(output.out)["a"]["what"] == "a function"
    says(output.err, "importing it printed a line", "loading")
    says(output.err, "make() printed 2 lines", "made")


def test_a_time_limit_that_is_none(capsys):
    for value in ("0", "never", "-3", "inf", "nan"):
        assert value in failed(capsys, "a", "b", "--module-timeout", value)
