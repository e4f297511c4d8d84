"""Decodes bitstreams in a process of its own; run as a program by the tests.

``python decode_elsewhere.py THREADS FILE...``: beside each ``FILE.bin`` lies ``FILE.json`` with ``"module:Class"`` and
options. Prints the name and the hash of the pixels of each.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import torch

from rdpbench.image import pixel_sha256


def main() -> None:
    threads, *files = sys.argv[1:]
    torch.set_num_threads(int(threads))
    for file in map(Path, files):
        where, options = json.loads(file.with_suffix(".json").read_text())
        module, _, name = where.partition(":")
        codec = getattr(importlib.import_module(module), name)(**options)
        print(file.stem, pixel_sha256(codec.decode(file.read_bytes())))


if __name__ == "__main__":
    main()
