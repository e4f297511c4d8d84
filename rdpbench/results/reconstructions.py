"""Decoded images on disk, as far as ``keep=`` asks for them: lossless PNG, named by codec, rate and image."""

from __future__ import annotations

import os
from pathlib import Path

from rdpbench.image import Image
from rdpbench.paths import ODD, file_name
from rdpbench.results.parts import unwritable
from rdpbench.results.schema import Row
from rdpbench.results.store import Store


def reconstruction_path(store: Store, row: Row) -> Path:
    """Where a row's reconstruction lies, if it was kept."""
    point = "none" if row.rate is None else f"{row.rate:g}"
    if row.target_bpp is not None:
        point = f"bpp{row.target_bpp:g}"
    stem = file_name(f"{file_name(row.image, ODD)}-{row.task_key[:8]}", ODD)
    return store.folder / "reconstructions" / file_name(row.codec, ODD) / point / f"{stem}.png"


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
