"""The report's folder: the page, its data, the plotting library, the images; what an earlier report left is removed."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from rdpbench.errors import ConfigError, MissingNeed
from rdpbench.results.parts import unwritable
from rdpbench.results.report.data import script
from rdpbench.results.report.pictures import Picture, ending, name_of

STATIC = Path(__file__).with_name("static")
MARK = '<meta name="generator" content="rdpbench report">'
"""In the page: a folder with another index.html is not ours to write into."""


def check(folder: Path) -> None:
    """Is this a place for a report?

    Raises:
        ConfigError: there is something else.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"--out {folder} is a file; name a folder")
    if links := [name for name in ("images", "thumbs", "data", "static") if (folder / name).is_symlink()]:
        raise ConfigError(f"{folder / links[0]} is a link, and nothing is written through it; put a folder there")
    page = folder / "index.html"
    ours = page.is_file() and MARK in page.read_text(encoding="utf-8", errors="replace")
    if not ours and any(one.name not in ("images", "thumbs", "data", "static") for one in folder.iterdir()):
        raise ConfigError(f"--out {folder} holds something else than a report; name a new folder")


def library() -> Path:
    """The plotting library, as its Python package brings it.

    Raises:
        MissingNeed: the package is not installed.
    """
    found = importlib.util.find_spec("plotly")
    path = Path(found.origin).with_name("package_data") / "plotly.min.js" if found and found.origin else None
    if path is None or not path.is_file():
        raise MissingNeed(
            "the report's curves need plotly.js (MIT), which the Python package plotly brings. "
            "Type: pip install 'rdpbench[report]'"
        )
    return path


def write(folder: Path, data: Mapping[str, Any]) -> Path:
    """Write everything but the images; the page comes last. Returns its path.

    Raises:
        StoreUnwritable: the folder cannot be written.
        MissingNeed: no plotting library.
    """
    plotly = library()
    scripts = {f"{name}.js": script(name, value).encode() for name, value in data.items()}
    static = {path.name: path.read_bytes() for path in sorted(STATIC.iterdir()) if path.suffix in (".js", ".css")}
    static["plotly.min.js"] = plotly.read_bytes()
    for name, files in (("data", scripts), ("static", static)):
        for file, content in files.items():
            _put(folder / name / file, content)
        for path in (folder / name).iterdir():
            if path.name not in files:
                path.unlink()
    page = folder / "index.html"
    _put(page, (STATIC / page.name).read_bytes())
    return page


def tidy(folder: Path, pictures: Iterable[Picture], refused: Set[str]) -> int:
    """Remove images that the page no longer refers to; returns how many.

    Only files named as images of a report are touched.
    """
    there = [one for one in pictures if one.sha256 not in refused]
    names = {f"{name_of(one.sha256)}.{ending(one.row)}" for one in there}
    names |= {f"{name_of(one.sha256)}.jpg" for one in there}
    removed = 0
    for path in (path for name in ("images", "thumbs") for path in (folder / name).glob("*/*")):
        if path.name not in names and re.fullmatch(r"[0-9a-f]{20}\.(webp|png|jpg|\d+\.tmp)", path.name):
            path.unlink()
            removed += path.suffix != ".jpg"
    return removed


def _put(path: Path, content: bytes) -> None:
    """Write a file whole; one that is the same already stays as it is."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.is_file() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
