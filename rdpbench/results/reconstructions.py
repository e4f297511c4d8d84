"""Decoded images on disk, as far as ``keep=`` asks for them: lossless PNG, named by codec, rate and image."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from rdpbench.image import Image
from rdpbench.results.parts import unwritable
from rdpbench.results.schema import Row
from rdpbench.results.store import Store


def reconstruction_path(store: Store, row: Row) -> Path:
    """Where a row's reconstruction lies, if it was kept."""
    point = "none" if row.rate is None else f"{row.rate:g}"
    if row.target_bpp is not None:
        point = f"bpp{row.target_bpp:g}"
    return store.folder / "reconstructions" / _safe(row.codec) / point / f"{_safe(row.image)}-{row.task_key[:8]}.png"


def put_reconstruction(store: Store, row: Row, pixels: Image) -> None:
    """Write the PNG."""
    from PIL import Image as pil

    path = reconstruction_path(store, row)
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pil.fromarray(pixels).save(beside, format="PNG", compress_level=1)
        beside.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error


def _safe(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._+=,\[\]-]", "_", name)
    # File systems take 255 bytes, and more is added to this one.
    return safe if len(safe) <= LONGEST else f"{safe[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


LONGEST = 200
"""Characters of a name that its file has, too."""
