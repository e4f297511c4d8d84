"""Names to classes, without importing more than is asked for.

Three ways in, looked up in this order:

1. ``./mine.py:MyCodec`` (or ``package.module:MyCodec``): a class in a file of the user's;
2. what ships, as lazy strings below;
3. entry points ``rdpbench.codecs``, ``rdpbench.datasets``, ``rdpbench.metrics`` of installed packages.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Literal

from rdpbench.errors import ConfigError, UnknownName

Kind = Literal["codec", "dataset", "metric"]

BUILTIN: dict[Kind, dict[str, str]] = {
    "codec": {
        "avif": "rdpbench.codecs.avif:AVIF",
        "bpg": "rdpbench.codecs.bpg:BPG",
        "heif": "rdpbench.codecs.heif:HEIF",
        "hevc": "rdpbench.codecs.hevc:HEVC",
        "jpeg": "rdpbench.codecs.jpeg:JPEG",
        "jpeg2000": "rdpbench.codecs.jpeg2000:JPEG2000",
        "jpegxl": "rdpbench.codecs.jpegxl:JPEGXL",
        "mozjpeg": "rdpbench.codecs.mozjpeg:MozJPEG",
        "vtm": "rdpbench.codecs.vtm:VTM",
        "vvenc": "rdpbench.codecs.vvenc:VVenC",
        "webp": "rdpbench.codecs.webp:WebP",
    },
    "dataset": {
        "folder": "rdpbench.datasets.folder:Folder",
        "kodak": "rdpbench.datasets.kodak:Kodak",
        "samples": "rdpbench.datasets.samples:Samples",
    },
    "metric": {
        "flip": "rdpbench.metrics.flip:FLIP",
        "lpips/alex": "rdpbench.metrics.lpips:LPIPSAlex",
        "lpips/vgg": "rdpbench.metrics.lpips:LPIPSVGG",
        "ms-ssim": "rdpbench.metrics.msssim:MSSSIM",
        "psnr": "rdpbench.metrics.psnr:PSNR",
        "psnr-pooled": "rdpbench.metrics.psnr:PooledPSNR",
    },
}


def names(kind: Kind) -> list[str]:
    """All registered names of a kind: shipped ones and entry points.

    >>> "jpeg" in names("codec")
    True
    """
    return sorted({*BUILTIN[kind], *_entry_points(kind)})


def load(kind: Kind, reference: str) -> type:
    """Import the class that a reference names.

    Raises:
        UnknownName: no such name; the nearest one is suggested.
        ConfigError: the file or class that the reference names cannot be loaded.

    >>> load("metric", "psnr").higher_is_better
    True
    """
    if ":" in reference:
        return _load_own(reference, f"{kind}={reference}")
    target = BUILTIN[kind].get(reference) or _entry_points(kind).get(reference)
    if target is None:
        raise UnknownName(kind, reference, names(kind), f"your own: {kind}=./my_{kind}.py:MyClass")
    if reference in BUILTIN[kind]:
        module, _, attribute = target.partition(":")
        builtin: type = getattr(importlib.import_module(module), attribute)
        return builtin
    return _load_own(target, f"entry point {reference!r} of an installed package")


def source_sha256(kind: Kind, reference: str) -> str:
    """Hash of the file that a class of the user's or of an entry point comes from; empty for what ships.

    It enters the keys: an edited codec of one's own is another codec. What that file imports is not followed.
    """
    if reference in BUILTIN[kind]:
        return ""
    file = sys.modules[load(kind, reference).__module__].__file__
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


@cache
def _entry_points(kind: Kind) -> dict[str, str]:
    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=f"rdpbench.{kind}s")}


def _load_own(reference: str, named_by: str) -> type:
    where, _, attribute = reference.rpartition(":")
    module = _module_from_file(Path(where), named_by) if where.endswith(".py") else _module(where, named_by)
    loaded = getattr(module, attribute, None)
    if not isinstance(loaded, type):
        own = (value for value in vars(module).values() if isinstance(value, type))
        classes = [value.__name__ for value in own if value.__module__ == module.__name__]
        raise UnknownName("class", attribute, classes, f"in {where}, named by {named_by}")
    return loaded


def _module(name: str, named_by: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a module of the user's may raise
        raise ConfigError(f"cannot import {name!r}, named by {named_by}: {type(error).__name__}: {error}") from error


def _module_from_file(path: Path, named_by: str) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"no such file: {path}, named by {named_by}")
    # The name depends on the place, so that two files called codec.py do not meet; dataclasses need it in sys.modules.
    name = f"rdpbench_own_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module
