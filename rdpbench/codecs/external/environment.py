"""What an external codec is made of, for its key: a folder of sources, and what its environment holds."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from rdpbench.errors import ConfigError
from rdpbench.paths import is_run

SOURCES = (".py", ".yaml", ".yml", ".json", ".toml", ".cfg", ".cpp", ".cu", ".h")
"""Endings of the files that are hashed of a folder without git, and of what git does not track."""
_SKIPPED = {".git", "__pycache__", ".venv", "venv", "node_modules"}
HOST = Path(__file__).with_name("host.py")
"""What runs in the other interpreter."""


def source_identity(folder: Path, besides: Path | None = None) -> str:
    """The state of a folder of sources: its git commit and, if it was edited, a hash of how; else a hash of its files.

    What runs wrote there is none of it, nor is the file ``besides``, which the key knows by what it declares.

    Raises:
        ConfigError: there is no such folder.

    >>> source_identity(Path("/no/such/folder"))
    Traceback (most recent call last):
    rdpbench.errors.ConfigError: source=/no/such/folder: no such folder
    """
    if not folder.is_dir():
        raise ConfigError(f"source={folder}: no such folder")
    commit = (_git(folder, "rev-parse", "HEAD") or b"").strip().decode(errors="replace")
    if not commit:
        return f"files {_hash(folder, sorted(_sources(folder, besides)))}"
    edited = _git(
        folder, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--binary", "--", ".", *_left_out(folder, besides)
    )
    listed = _git(folder, "ls-files", "--others", "--exclude-standard", "-z")
    if edited is None or listed is None:  # such as in a copy that lacks objects: git cannot say how it was edited
        return f"commit {commit}, files {_hash(folder, sorted(_sources(folder, besides)))}"
    others = listed.decode(errors="surrogateescape")
    names = [folder / name for name in others.split("\0") if name.endswith(SOURCES)]
    runs = {place for path in names for place in path.parents if place.is_relative_to(folder) and is_run(place)}
    untracked = [path for path in names if path != besides and not runs.intersection(path.parents)]
    if not edited and not untracked:
        return f"commit {commit}"
    digest = hashlib.sha256(edited + _hash(folder, sorted(untracked)).encode()).hexdigest()
    return f"commit {commit}, edited: {digest[:16]}"


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints; None where it fails. Nothing that the folder configures is run."""
    line = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
    try:
        ended = subprocess.run(line, capture_output=True, check=False, env=environment, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stdout if ended.returncode == 0 else None


def _sources(folder: Path, besides: Path | None) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED and not is_run(Path(place, name)))
        paths = (Path(place, name) for name in names if name.endswith(SOURCES))
        yield from (path for path in paths if path != besides)


def _left_out(folder: Path, besides: Path | None) -> list[str]:
    """How git is told to leave out a file."""
    inside = besides is not None and besides.is_relative_to(folder)
    return [f":(exclude,literal){besides.relative_to(folder)}"] if besides is not None and inside else []


def _hash(folder: Path, files: Sequence[Path]) -> str:
    listed = [(str(file.relative_to(folder)), hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


@cache
def packages_of(python: str) -> dict[str, str]:
    """The Python version and the packages of an interpreter, as `coder_of_packages` words them.

    Raises:
        ConfigError: it is no interpreter of Python 3.8 or later.
    """
    line = [python, str(HOST), "--environment"]
    try:
        ended = subprocess.run(line, capture_output=True, check=True, timeout=120, env=clean_environment(), text=True)
        stated = json.loads(ended.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ConfigError(f"python={python} is no interpreter of Python 3.8 or later: {error}") from error
    return coder_of_packages(stated["python"], stated["packages"])


def coder_of_packages(version: str, packages: Mapping[str, str]) -> dict[str, str]:
    """What of an environment is in a codec's key.

    >>> coder_of_packages("3.8.18", {"torch": "2.1.2"})
    {'python': '3.8.18', 'package torch': '2.1.2'}
    """
    return {"python": version, **{f"package {name}": number for name, number in sorted(packages.items())}}


def clean_environment(**more: str) -> dict[str, str]:
    """Our environment without what belongs to our own interpreter."""
    ours = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    return {name: value for name, value in os.environ.items() if name not in ours} | more
