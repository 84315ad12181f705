"""Checkpoints as T5X writes them, by msgpack and tensorstore, and what T5X computes of them.

The formulas are those of T5X's own examples in float64, on T5X's names and layouts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import tensorstore

D, H, A, F, V, R, FAR = 13, 3, 5, 17, 31, 8, 20
LAYERS = {"encoder": 2, "decoder": 3}
SELF = {"encoder": "attention", "decoder": "self_attention"}
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One of the forms that T5X's arrays have; ``stacked`` is the layers' axis."""

    activations: tuple[str, ...] = ("gelu", "linear")
    stacked: int | None = None
    heads_apart: bool = False
    per_layer: bool = False
    own_tables: bool = False
    own_output: bool = True
    dtype: Any = np.float64

    def arrays(self, seed: int = 0) -> Arrays:
        """Random arrays under the names below ``target``."""
        draw = np.random.default_rng(seed)
        return {
            name: (draw.normal(0, 0.4, shape) + name.endswith("scale")).astype(self.dtype)
            for name, shape in self.shapes().items()
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        tables = list(LAYERS) if self.own_tables else [""]
        shapes = {f"{half}.token_embedder.embedding".strip("."): (V, D) for half in tables}
        shapes |= {"decoder.logits_dense.kernel": (D, V)} if self.own_output else {}
        for half, count in LAYERS.items():
            shapes[f"{half}.{half}_norm.scale"] = (D,)
            shapes |= {} if self.per_layer else {f"{half}.relpos_bias.rel_embedding": (H, R)}
            for name, shape in self._layer(half).items():
                if self.stacked is not None:
                    shape = (*shape[: self.stacked], count, *shape[self.stacked :])
                    shapes[f"{half}.{half}.{name}"] = shape
                else:
                    shapes |= {f"{half}.layers_{i}.{name}": shape for i in range(count)}
        return shapes

    def _layer(self, half: str) -> dict[str, tuple[int, ...]]:
        heads = (H, A) if self.heads_apart else (H * A,)
        parts = [SELF[half], "encoder_decoder_attention"][: 1 + (half == "decoder")]
        norms = ["self_attention", "cross_attention"] if half == "decoder" else ["attention"]
        shapes = {f"pre_{name}_layer_norm.scale": (D,) for name in (*norms, "mlp")}
        for part in parts:
            shapes |= {f"{part}.{name}.kernel": (D, *heads) for name in ("query", "key", "value")}
            shapes[f"{part}.out.kernel"] = (*heads, D)
        inner = ("wi_0", "wi_1") if len(self.activations) > 1 else ("wi",)
        shapes |= {f"mlp.{name}.kernel": (D, F) for name in inner} | {"mlp.wo.kernel": (F, D)}
        return shapes | ({"relpos_bias.rel_embedding": (H, R)} if self.per_layer else {})

    def gin(self) -> str:
        """The gin file of such a model, as far as it says what arrays do not say."""
        return (
            "import seqio\n# Macros:\nDROPOUT_RATE = 0.25\n"
            "trainer.Trainer.num_microbatches = None\n"
            "network.T5Config:\n"
            f"  mlp_activations = {self.activations!r}\n"
            f"  num_heads = {H}  # H\n  head_dim = {A}\n"
            "  dropout_rate = %DROPOUT_RATE\n"
            f"  logits_via_embedding = {not self.own_output}\n"
            f"relative_position_biases.RelativePositionBiases.max_distance = {FAR}\n"
        )


CASES = {
    "t5 1.1": Case(),
    "t5 1.0": Case(("relu",), own_output=False),
    "silu, own tables": Case(("silu", "linear"), own_tables=True),
    "own tables, tied": Case(own_tables=True, own_output=False),
    "scalable": Case(heads_apart=True, per_layer=True),
    "scalable, scanned": Case(heads_apart=True, per_layer=True, stacked=1),
    "flaxformer, scanned": Case(stacked=1),
    "scanned along axis 0": Case(heads_apart=True, per_layer=True, stacked=0),
}


def packed(array: np.ndarray, kind: int = 1) -> msgpack.ExtType:
    """An array as flax.serialization has it; kind 3 is a NumPy number."""
    content = array.shape, array.dtype.name, array.tobytes()
    return msgpack.ExtType(kind, msgpack.packb(content, use_bin_type=True))


def specified(folder: Path, name: str, array: np.ndarray, driver: str, compressor: Any) -> dict:
    """Write an array as tensorstore does, two rows a chunk; its specification for the tree."""
    chunks = [min(2, array.shape[0]), *array.shape[1:]]
    metadata = {"chunks": chunks, "compressor": compressor, "shape": list(array.shape)}
    spec = {"driver": "zarr", "dtype": array.dtype.name, "metadata": metadata}
    place = {"driver": "file", "path": f"{folder / name}/"}
    opened = tensorstore.open({**spec, "kvstore": place}, create=True, open=True).result()
    opened.write(array).result()
    return {**spec, "kvstore": {"driver": driver, "path": f"{name}/"}}


def nested(leaves: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *path, last = name.split(".")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree


def states_of(arrays: Arrays) -> Arrays:
    """The state of Adafactor, whose slots that are not used have one zero."""
    unused = np.zeros(1, np.float32)
    states = {}
    for name, array in arrays.items():
        states |= {f"{name}.{slot}": unused for slot in ("m", "v", "v_col", "v_row")}
        states[f"{name}.v"] = np.full(array.shape, 0.5, np.float32)
    return states


def write_checkpoint(
    folder: Path,
    arrays: Arrays,
    step: int = 1100,
    driver: str = "gfile",
    version: int = 3,
    small: int = 20,
    compressor: Any = None,
    states: bool = False,
) -> Path:
    """``checkpoint_STEP`` in a folder; arrays of at most ``small`` numbers lie in the tree."""
    place = folder / f"checkpoint_{step}"
    place.mkdir(parents=True)
    compressor = compressor or {"id": "gzip", "level": 1}
    every = {f"target.{name}": array for name, array in arrays.items()}
    if states:
        every |= {f"state.param_states.{n}": array for n, array in states_of(arrays).items()}
    leaves = {
        name: packed(array)
        if array.size <= small
        else specified(place, name, array, driver, compressor)
        for name, array in every.items()
    }
    tree = nested(leaves | {"state.step": packed(np.array(step, np.int32), 3)})
    content = {"version": version, **({"optimizer": tree} if version == 3 else tree)}
    (place / "checkpoint").write_bytes(msgpack.packb(content, use_bin_type=True))
    return place


def stored(place: Path) -> Arrays:
    """The weights of a checkpoint, read with msgpack and tensorstore alone."""
    content = msgpack.unpackb((place / "checkpoint").read_bytes(), strict_map_key=False)
    found: Arrays = {}

    def walk(node: Any, name: str) -> None:
        if isinstance(node, dict) and "kvstore" not in node:
            for key, part in node.items():
                walk(part, f"{name}.{key}".strip("."))
        elif isinstance(node, dict):
            path = place / node["kvstore"]["path"]
            spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{path}/"}}
            found[name] = np.asarray(tensorstore.open(spec).result().read().result())
        elif isinstance(node, msgpack.ExtType):
            shape, dtype, data = msgpack.unpackb(node.data)
            found[name] = np.frombuffer(data, dtype).reshape(shape)

    walk(content["optimizer"]["target"], "")
    return found


def logits(
    arrays: Arrays, case: Case, source: np.ndarray, target: np.ndarray, far: int = FAR
) -> np.ndarray:
    """What T5X computes, (B, T, V), its decoder masked by ``target`` but for the first token."""
    model = Model({n: a.astype(np.float64) for n, a in arrays.items()}, case, far)
    seen = target != 0
    seen[:, 0] = True
    return model.decode(target, seen, model.encode(source), source != 0)


class Model:
    """An encoder and a decoder of arrays under T5X's names."""

    def __init__(self, arrays: Arrays, case: Case, far: int = FAR) -> None:
        self.arrays, self.case, self.far = arrays, case, far
        self.heads = next(a for n, a in arrays.items() if n.endswith("rel_embedding")).shape[0]
        if case.stacked == 0 and case.per_layer:
            self.heads = arrays["encoder.encoder.relpos_bias.rel_embedding"].shape[1]

    def of(self, half: str, i: int, name: str) -> np.ndarray:
        """An array of layer ``i``."""
        if self.case.stacked is None:
            return self.arrays[f"{half}.layers_{i}.{name}"]
        return self.arrays[f"{half}.{half}.{name}"].take(i, self.case.stacked)

    def layers(self, half: str) -> int:
        if self.case.stacked is None:
            return len({n.split(".")[1] for n in self.arrays if n.startswith(f"{half}.layers_")})
        return self.arrays[f"{half}.{half}.mlp.wo.kernel"].shape[self.case.stacked]

    def table(self, half: str) -> np.ndarray:
        return self.arrays[f"{half}.token_embedder.embedding" if self.case.own_tables
                           else "token_embedder.embedding"]  # fmt: skip

    def bias(self, half: str, i: int, length: int) -> np.ndarray:
        """(H, length, length) by the buckets of key position - query position."""
        table = (
            self.of(half, i, "relpos_bias.rel_embedding")
            if self.case.per_layer
            else self.arrays[f"{half}.relpos_bias.rel_embedding"]
        )
        relative = np.arange(length)[None, :] - np.arange(length)[:, None]
        buckets, base = table.shape[1], np.zeros_like(relative)
        if half == "encoder":
            buckets //= 2
            base, relative = np.where(relative > 0, buckets, 0), -np.abs(relative)
        distance, exact = np.maximum(-relative, 0), buckets // 2
        ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
        ratio = ratio / np.float32(np.log(self.far / exact)) * np.float32(buckets - exact)
        farther = np.minimum(exact + ratio.astype(np.int64), buckets - 1)
        return table[:, base + np.where(distance < exact, distance, farther)]

    def norm(self, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale

    def attend(self, half, i, part, x, memory, mask, bias):
        kernels = {n: self.of(half, i, f"{part}.{n}.kernel") for n in ("query", "key", "value")}
        width = x.shape[-1]
        q, k, v = (
            np.einsum("bld,dha->bhla", m, kernels[n].reshape(width, self.heads, -1))
            for n, m in (("query", x), ("key", memory), ("value", memory))
        )
        scores = np.where(mask, q @ k.swapaxes(-1, -2) + bias, -1e10)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out = self.of(half, i, f"{part}.out.kernel").reshape(self.heads, -1, width)
        return np.einsum("bhla,had->bld", weights @ v, out)

    def feed_forward(self, half: str, i: int, x: np.ndarray) -> np.ndarray:
        first, *rest = self.case.activations
        name = "mlp.wi_0.kernel" if rest else "mlp.wi.kernel"
        inner = FUNCTIONS[first](x @ self.of(half, i, name))
        inner = inner * (x @ self.of(half, i, "mlp.wi_1.kernel")) if rest else inner
        return inner @ self.of(half, i, "mlp.wo.kernel")

    def encode(self, source: np.ndarray) -> np.ndarray:
        x, mask = self.table("encoder")[source], (source != 0)[:, None, None, :]
        for i in range(self.layers("encoder")):
            n = self.norm(x, self.of("encoder", i, "pre_attention_layer_norm.scale"))
            bias = self.bias("encoder", i, source.shape[1])
            x = x + self.attend("encoder", i, "attention", n, n, mask, bias)
            n = self.norm(x, self.of("encoder", i, "pre_mlp_layer_norm.scale"))
            x = x + self.feed_forward("encoder", i, n)
        return self.norm(x, self.arrays["encoder.encoder_norm.scale"])

    def decode(self, target, seen, memory, real) -> np.ndarray:
        x, half, T = self.table("decoder")[target], "decoder", target.shape[1]
        mask = seen[:, None, None, :] & np.tri(T, dtype=bool)
        for i in range(self.layers(half)):
            n = self.norm(x, self.of(half, i, "pre_self_attention_layer_norm.scale"))
            x = x + self.attend(half, i, "self_attention", n, n, mask, self.bias(half, i, T))
            n = self.norm(x, self.of(half, i, "pre_cross_attention_layer_norm.scale"))
            across = real[:, None, None, :]
            x = x + self.attend(half, i, "encoder_decoder_attention", n, memory, across, 0.0)
            n = self.norm(x, self.of(half, i, "pre_mlp_layer_norm.scale"))
            x = x + self.feed_forward(half, i, n)
        x = self.norm(x, self.arrays["decoder.decoder_norm.scale"])
        if not self.case.own_output:
            return x @ self.table("decoder").T / np.sqrt(x.shape[-1])
        return x @ self.arrays["decoder.logits_dense.kernel"]


FUNCTIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "linear": lambda x: x,
}
