"""Transformers of OpenNMT-py."""
