"""Stored curves as a regression gate.

``curves`` (files), ``compare`` (verdicts), ``command``; ``reproduce`` holds published numbers.
"""
