"""Runs programs for tests, each in a process of its own, forked from one that has imported what they import.

``python forks.py MODULE...``: a line on stdin orders a program, in JSON: its ``words`` as they follow ``python``, its
``folder``, ``environment``, and the files ``out`` and ``err`` that take what it prints. The answer on stdout is its
exit code. A program finds what it would find in a new process, except that the modules are imported already, and that
all programs have the same seed of hashes.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any


def fork() -> dict[str, Any]:
    """Answer orders until there are no more; returns one in each child, which has to do it."""
    answers = os.fdopen(os.dup(1), "w")
    gc.freeze()  # children share the modules' memory as long as nobody writes into it
    for line in sys.stdin:
        child = os.fork()
        if not child:
            return dict(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
    sys.exit()


def run(words: list[str], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    """Become that program."""
    for number, path in enumerate((os.devnull, out, err)):
        opened = os.open(path, os.O_RDWR)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(os.dup(0))  # the other one has read ahead
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # What modules keep of the process that imported them.
    tempfile.tempdir = None
    if "multiprocessing.process" in sys.modules:
        sys.modules["multiprocessing.process"].ORIGINAL_DIR = folder  # type: ignore[attr-defined]
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if words[:2] == ["-W", "error"]:
        warnings.simplefilter("error")
        words = words[2:]
    if words[0] == "-m":
        sys.path[0] = folder
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(words[0]).parent)
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        importlib.import_module(name)
    run(**fork())
