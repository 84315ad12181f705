"""What tests of the TPU compiler share."""

import importlib.util

import pytest

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'twinformer[tpu]' in an environment of its own",
)
