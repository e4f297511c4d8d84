"""Codecs: one system, one file."""
