"""Codecs in an environment of their own: any class under another interpreter, any pair of programs.

Read ``declared.py`` first (what a user types or writes into a YAML file, and the reference that it becomes), then
``hosted.py`` with ``host.py`` (a class in another interpreter), ``programs.py`` (argument lists), and
``environment.py`` (what of an environment is in the key).

A reference says where the class or declaration is and how it runs: ``/home/me/mine.py:Mine@{"python": ...}``. It comes
from the command line or the user's conf, never from rows: `rdpbench.registry.load` refuses references that rows name.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from rdpbench import own, registry
from rdpbench.codecs.contract import Rate
from rdpbench.codecs.external.declared import Declaration, read


def source_now(reference: str) -> str:
    """Hash of the files of the class, or of what the declaration says; nothing is executed.

    Raises:
        OSError: no such file.
    """
    where = Path(registry.parse(reference).where)
    if str(where) == "folder":
        return ""  # its pictures are in the key by their content
    return own.read_file(where).sha256 if where.suffix == ".py" else read(where).sha256


def forget() -> None:
    """A new command: interpreters are asked again what they have, and classes are loaded again."""
    load.cache_clear()
    if f"{__name__}.environment" in sys.modules:
        from rdpbench.codecs.external.environment import packages_of
        from rdpbench.codecs.external.hosted import close_hosts

        packages_of.cache_clear()
        close_hosts()


@lru_cache(32)
def load(reference: str) -> type[Any]:
    """The codec class of a reference; the same one for a whole command, as it is asked for a dozen times in a task.

    Raises:
        ConfigError: the interpreter does not start, or the class or declaration cannot be loaded.
    """
    where, name, text = registry.parse(reference)
    apart, sha256 = json.loads(text), source_now(reference)
    if where == "folder":
        from rdpbench.codecs.external.pictures import pictures_class

        return pictures_class(Path(name), apart)
    if where.endswith(".yaml"):
        from rdpbench.codecs.external.programs import programs_class

        return programs_class(read(Path(where)), apart)
    from rdpbench.codecs.external.hosted import hosted_class

    rate = None
    if points := tuple(apart.get("rates", ())):  # a declaration states them: they are all that is legal
        rate = Rate(apart["rate_field"], min(points), max(points), 0, apart["rises"], points, listed=True)
    declared = Path(apart["declared"]) if apart.get("declared") else None
    return hosted_class(Path(where), name, apart["python"], apart["source"], rate, apart["files"], sha256, declared)


__all__ = ["Declaration", "forget", "load", "read", "source_now"]
