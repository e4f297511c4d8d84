"""Metrics: one family, one file; the protocol is part of the name."""
