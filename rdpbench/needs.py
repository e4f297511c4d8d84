"""What a codec, dataset or metric needs on this machine, and the command that gets it.

`rdpbench doctor` lists needs; a plan checks them before anything runs.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from rdpbench.errors import MissingNeed


class Need(Protocol):
    """Something that may be missing."""

    def missing(self) -> str | None:
        """None if it is here; else one or more lines: what is missing and what to type."""
        ...


def refused(find: Callable[[], object]) -> str | None:
    """What the `MissingNeed` says that a search ends in; None if it finds what is needed."""
    try:
        find()
    except MissingNeed as error:
        return str(error)
    return None


EXTRAS = {
    **dict.fromkeys(("compressai", "safetensors", "torch", "transformers"), "learned"),
    **dict.fromkeys(("accelerate", "diffusers"), "generative"),
    **dict.fromkeys(("clean-fid", "flip-evaluator", "lpips", "opencv-python-headless"), "metrics"),
    **dict.fromkeys(("torchmetrics", "torchvision"), "metrics"),
    "plotly": "report",
    "submitit": "slurm",
    "ray": "ray",
}
"""Distributions that the core does without, and the extra of pyproject.toml that brings them."""
MODULES = {"cv2": "opencv-python-headless", "cleanfid": "clean-fid"}
"""Distributions whose module has another name."""


@dataclass(frozen=True)
class Package:
    """A Python distribution. ``extra``: the one to name if `EXTRAS` has another; it holds all that a codec needs.

    >>> Package("numpy").missing() is None
    True
    >>> print(Package("no-such-thing", module="no_such_thing", extra="ray").missing())
    Python package 'no-such-thing' is not installed; type: pip install 'rdpbench[ray]'
    """

    name: str
    module: str = ""
    extra: str = ""

    def missing(self) -> str | None:
        if importlib.util.find_spec(self.module or self.name.replace("-", "_")):
            return None
        extra = self.extra or EXTRAS.get(self.name)
        how = f"'rdpbench[{extra}]'" if extra else self.name
        return f"Python package {self.name!r} is not installed; type: pip install {how}"


def absent(error: ModuleNotFoundError) -> str | None:
    """What to type where a module was not there; None if it is of no package of ours.

    >>> absent(ModuleNotFoundError("No module named 'no_such_thing'", name="no_such_thing")) is None
    True
    """
    module = (error.name or "").partition(".")[0]
    package = MODULES.get(module, module.replace("_", "-"))
    return Package(package, module).missing() if package in EXTRAS else None


ACCEPT = "RDPBENCH_ACCEPT"


@dataclass(frozen=True)
class Licence(Need):
    """The user's word that a licence has been read, in the environment variable ``RDPBENCH_ACCEPT``.

    >>> print(Licence("xyz", "MIT", "https://example.org").missing())
    'xyz' is under: MIT; read it at https://example.org; to accept, type: export RDPBENCH_ACCEPT=xyz
    """

    word: str
    licence: str
    page: str

    def missing(self) -> str | None:
        """None if the variable's words (separated by commas) hold this one; else the licence, and what to type."""
        words = [word.strip() for word in os.environ.get(ACCEPT, "").split(",") if word.strip()]
        if self.word in words:
            return None
        typed = ",".join([*words, self.word])
        return (
            f"{self.word!r} is under: {self.licence}; read it at {self.page}; to accept, type: export {ACCEPT}={typed}"
        )


@dataclass(frozen=True)
class File:
    """A data file of the user's, named by an environment variable."""

    name: str
    variable: str
    page: str
    """Upstream page to get it from."""
    kind: ClassVar[str] = "file"

    def find(self) -> Path | None:
        """Its path, or None."""
        path = Path(os.environ.get(self.variable, "")).expanduser()
        return path if path.is_file() else None

    def missing(self) -> str | None:
        if self.find():
            return None
        if given := os.environ.get(self.variable):
            return f"{self.variable}={given!r} is not a {self.kind}; it must name {self.name}"
        return self.how_to_get()

    def how_to_get(self) -> str:
        """What to say where nothing names it."""
        return f"{self.name} is not known; get it from {self.page} and type: export {self.variable}=/where/it/is"


@dataclass(frozen=True)
class Binary(File):
    """A program of the user's: a path in the environment variable, or a name on PATH."""

    kind: ClassVar[str] = "program that can be run"

    def find(self) -> Path | None:
        """Its path, or None."""
        path = super().find() if os.environ.get(self.variable) else Path(shutil.which(self.name) or "")
        return path.resolve() if path and path.is_file() and os.access(path, os.X_OK) else None

    def how_to_get(self) -> str:
        """What to say where it is not on PATH."""
        return (
            f"program {self.name!r} is not on PATH; get it from {self.page} "
            f"and put it on PATH, or type: export {self.variable}=/where/it/is/{self.name}"
        )


def package_version(distribution: str) -> str:
    """Installed version of a distribution, ``"none"`` if it is absent.

    >>> package_version("no-such-thing")
    'none'
    """
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"
