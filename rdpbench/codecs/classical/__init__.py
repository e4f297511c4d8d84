"""Codecs of standards and of companies: one format, one file, but for those that one library writes.

`pillow` has what codecs share that a Python library runs, and `ycbcr` colours and planes.
"""
