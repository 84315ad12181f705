"""Texts on standard input."""

import io
import sys

import pytest


@pytest.fixture
def piped(monkeypatch):
    """A function: the bytes that standard input holds."""

    def piped(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return piped
