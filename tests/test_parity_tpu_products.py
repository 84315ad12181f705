"""The check of precision in a compiled program's text, and what the TPU compiler writes there."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from tpu_cases import needs_libtpu

from parity import tpu_command as tpu
from parity.tpu_products import faults, products

# What the TPU compiler writes for f(x, w) = max(x @ w, 0), shortened.
COMPILED = """\
HloModule jit_f, is_scheduled=true

%fused_computation (param_0.2: f32[256,512], param_1.2: f32[512,1024]) -> f32[256,1024] {{
  %param_0.2 = f32[256,512]{{1,0:T(8,128)}} parameter(0)
  %fusion = {operand}[256,512]{{1,0:T(8,128)}} fusion(%param_0.2), kind=kLoop, calls=%bitcast_fusion
  %param_1.2 = f32[512,1024]{{1,0:T(8,128)S(1)}} parameter(1)
  %convolution.1 = f32[256,1024]{{1,0:T(8,128)}} convolution(%fusion, %param_1.2), \
dim_labels=bf_io->bf, {precision}metadata={{op_name="jit(f)/dot_general" stack_frame_id=2}}
  ROOT %max.0 = f32[256,1024]{{1,0:T(8,128)}} maximum(%convolution.1, %convolution.1)
}}
"""
HIGHEST = "operand_precision={highest,highest}, "


def compiled_text(precision: str, operand: str = "f32") -> str:
    return COMPILED.format(precision=precision, operand=operand)


def test_six_passes_are_float32() -> None:
    (product,) = products(compiled_text(HIGHEST))
    assert product.operands == ("f32[256,512]", "f32[512,1024]")
    assert product.result == "f32[256,1024]" and product.precision == ("highest", "highest")
    assert product.source == "jit(f)/dot_general"
    assert faults(compiled_text(HIGHEST)) == []


@pytest.mark.parametrize("pair", ["high,high", "highest,default", "default,highest", ""])
def test_fewer_passes_are_not(pair: str) -> None:
    (fault,) = faults(compiled_text(f"operand_precision={{{pair}}}, " if pair else ""))
    said = pair or "default,default"
    assert fault == f"convolution.1 (jit(f)/dot_general): operand precision {said}, not highest"


def test_narrow_operands_are_not_saved_by_their_precision() -> None:
    product, made = faults(compiled_text(HIGHEST, "bf16"))
    assert "works in bf16, not in f32" in product
    assert made == "fusion: numbers of type bf16"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("%r = f32[8]{0} reduce-precision(%x), exponent_bits=8, mantissa_bits=7", "rounds"),
        ("%c = bf16[8]{0} convert(%x)", "numbers of type bf16"),
        ("ROOT %c = (f32[8]{0}, f8e4m3fn[8]{0}) tuple(%x, %y)", "numbers of type f8e4m3fn"),
        ('%k = f32[8]{0} custom-call(%x), custom_call_target="tpu_custom_call"', "may multiply"),
        ("%d = f32[8,8]{1,0} dot(%x, %y), lhs_contracting_dims={1}", "default,default"),
        ("%d = f32[8]{0} dot(f64[8,8]{1,0} %x, bf16[8]{0} %y), " + HIGHEST, "bf16"),
        ("%d = f32[8,8]{1,0} dot(%unknown, %y), " + HIGHEST, "works in ?"),
        (
            "%d = f32[8,8]{1,0} dot(f32[8,8] %x, f32[8,8] %y), algorithm=dot_tf32_tf32_f32",
            "dot_tf32_tf32_f32",
        ),
    ],
)
def test_everything_else_that_is_less_than_float32_is_seen(line: str, fault: str) -> None:
    known = "  %x = f32[8,8]{1,0} parameter(0)\n  %y = f32[8,8]{1,0} parameter(1)\n"
    found = faults(f"%body (x: f32[8,8]) -> f32[8] {{\n{known}  {line}\n}}\n")
    assert any(fault in entry for entry in found)


def test_what_is_exact_or_only_moves_numbers_is_no_fault() -> None:
    text = """\
%body (x: s8[8,8]) -> s32[8,8] {
  %x = s8[8,8]{1,0} parameter(0)
  %c = s32[8,8]{1,0} convolution(%x, %x), dim_labels=bf_io->bf
  %t = (f32[8,2]{1,0}, s32[8,2]{1,0}) custom-call(%c), custom_call_target="TopK"
  ROOT %a = f32[8]{0} add(%t, %t), metadata={op_name="jit(f)/bf16[8]"}
}
"""
    assert len(products(text)) == 1 and faults(text) == []


# Of an argmax only the index is read; the compiler then narrows the maximum that goes with it.
ARGMAX = """\
%fused (p: f32[8,19]) -> (bf16[8], s32[8]) {
  %p = f32[8,19]{1,0} parameter(0)
  %i = s32[8,19]{1,0} iota(), iota_dimension=1
  ROOT %reduce = (bf16[8]{0:T(256)(2,1)}, s32[8]{0}) reduce(%p, %i, %p, %i), dimensions={1}
}

ENTRY %main (x: f32[8,19]) -> s32[8] {
  %x = f32[8,19]{1,0} parameter(0)
  %both = (bf16[8]{0:T(256)(2,1)}, s32[8]{0}) fusion(%x), kind=kLoop, calls=%fused
  ROOT %index = s32[8]{0} get-tuple-element(%both), index=1
}
"""


def test_narrow_numbers_that_nobody_reads_are_no_fault() -> None:
    assert faults(ARGMAX) == []
    assert faults(ARGMAX.replace("index=1", "index=0")) == ["both: numbers of type bf16"]
    handed_on = ARGMAX.replace("get-tuple-element(%both), index=1", "while(%both)")
    assert faults(handed_on) == ["both: numbers of type bf16"]
    returned = ARGMAX.replace("  %both", "  ROOT %both")
    assert faults(returned) == ["both: numbers of type bf16"]


def test_names_belong_to_their_computation() -> None:
    wide = compiled_text(HIGHEST)
    narrow = wide.replace("%fused_computation ", "%other ").replace(
        "%fusion = f32", "%fusion = bf16"
    )
    assert [p.fault is None for p in products(narrow + "\n" + wide)] == [False, True]


@pytest.mark.parametrize(("precision", "count"), [("highest", 0), ("default", 1)])
def test_a_program_compiled_here_is_judged_alike(precision: str, count: int) -> None:
    with jax.default_matmul_precision(precision):
        compiled = jax.jit(lambda x, w: x @ w).lower(jnp.ones((96, 64)), jnp.ones((64, 80)))
    found = faults(compiled.compile().as_text())
    assert len(found) == count


@needs_libtpu
def test_what_the_compiler_makes_of_each_way_to_ask() -> None:
    """A reduced product is seen however it came about, and highest is the six-pass algorithm."""
    line = [sys.executable, "-c", WAYS]
    environment = os.environ | tpu.environment(None)
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert {name: len(entry["faults"]) > 0 for name, entry in found.items()} == {
        "unset": True, "bfloat16": True, "high": True, "highest": False, "X1": True, "X3": True,
        "X6": False, "one operand": True, "rounded operands": True, "bfloat16 operands": True,
        "a vector": False,
    }  # fmt: skip
    assert found["X6"]["precision"] == found["highest"]["precision"] == ["highest", "highest"]
    assert found["X3"]["precision"] == found["high"]["precision"] == ["high", "high"]
    assert found["X1"]["precision"] == found["unset"]["precision"] == ["default", "default"]
    assert found["a vector"]["precision"] is None


WAYS = """
import json
import jax, jax.numpy as jnp
from parity.tpu_products import faults, products
from parity.tpu_programs import chips_of_v5e

here = jax.sharding.SingleDeviceSharding(chips_of_v5e(1)[0])
narrow = lambda x: x.astype(jnp.bfloat16)
ways = {
    "unset": None, "bfloat16": "bfloat16", "high": "high", "highest": "highest",
    "X1": "BF16_BF16_F32", "X3": "BF16_BF16_F32_X3", "X6": "BF16_BF16_F32_X6",
    "one operand": ("highest", "default"),
}
asks = {
    name: (lambda x, w, way=way: jnp.matmul(x, w, precision=way)) for name, way in ways.items()
} | {
    "rounded operands": lambda x, w: jnp.matmul(
        narrow(x).astype(x.dtype), narrow(w).astype(x.dtype), precision="highest"),
    "bfloat16 operands": lambda x, w: jnp.matmul(
        narrow(x), narrow(w), precision="highest", preferred_element_type=jnp.float32),
    "a vector": lambda x, w: jnp.matmul(x[:1], w, precision="highest"),
}
found = {}
for name, ask in asks.items():
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32, sharding=here) for s in ((256, 512), (512, 128))]
    text = jax.jit(ask).lower(*shapes).compile({"exec_time_optimization_effort": -1.0}).as_text()
    made = products(text)
    found[name] = {"faults": faults(text), "precision": made[0].precision if made else None}
print(json.dumps(found))
"""
