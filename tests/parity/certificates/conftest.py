"""A certified folder."""

import pytest


@pytest.fixture
def folder(tmp_path):
    """A checkpoint with a certificate, and A beside it."""
    from certificate_cases import certified

    return certified(tmp_path)
