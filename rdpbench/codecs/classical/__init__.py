"""Codecs of standards and of companies: one format, one file.

`inprocess` is what codecs share that a Python library runs, `program` what those share that run a program of the
user's, and `ycbcr` colours and planes.
"""
