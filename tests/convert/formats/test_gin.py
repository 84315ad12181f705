"""Gin files: plain bindings are read, and nothing is run."""

import pytest

from convert.formats.gin import read_gin
from transformer_spec import UserError

TEXT = """
from t5x import models  # a comment
include 't5x/other.gin'
NUM = 6
OTHER/macro.value = 3
SAME = %NUM
network.T5Config:
  num_heads = %NUM
  mlp_activations = ('gelu',   # of two
     'linear')
  text = "a # b = c"
network.T5Config.head_dim = \\
   64
a/b.c = %SAME
d = %OTHER
round = %round
function = @models.make()
broken = (1, 2
"""


def test_bindings(tmp_path):
    (tmp_path / "x.gin").write_text(TEXT)
    assert read_gin(tmp_path / "x.gin") == {
        "NUM": 6,
        "OTHER/macro.value": 3,
        "SAME": 6,
        "network.T5Config.num_heads": 6,
        "network.T5Config.mlp_activations": ("gelu", "linear"),
        "network.T5Config.text": "a # b = c",
        "network.T5Config.head_dim": 64,
        "a/b.c": 6,
        "d": 3,
    }


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "x.gin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not readable as a gin file"):
        read_gin(tmp_path / "x.gin")
