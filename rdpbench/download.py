"""Download one file so that it appears under its name only when it is whole and its hash is right."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from rdpbench.errors import MissingNeed

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes of the whole file."""

_TIMEOUT_S = 30
_CHUNK = 1 << 20


def download(
    url: str, target: Path, *, sha256: str | None, size: int, hint: str, progress: Progress | None = None
) -> None:
    """Download ``url`` to ``target``.

    Args:
        url: where the file is.
        target: its path here; folders above it are made.
        sha256: of its bytes; None if nobody published it.
        size: its bytes, or about that; as much must be free on the disk.
        hint: how to get the file by hand; ends each error.
        progress: called after each block; by default every fifth of a file of some size is told on stderr.

    Raises:
        MissingNeed: no network, a refusal, a cut connection, other bytes or too little disk.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        if free < size:
            raise MissingNeed(
                f"{target.name} needs {size / 1e6:.0f} MB and {target.parent} has {free / 1e6:.0f} MB left\n{hint}"
            )
        found = _stream(url, part, size, progress or _tell(url, target.name, size))
        if sha256 and found != sha256:
            raise MissingNeed(f"{url} gave other bytes: sha256 {found}, expected {sha256}\n{hint}")
        part.replace(target)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # a refusal is also an answer, with an open connection
        raise MissingNeed(f"cannot download {url}: {error}\n{hint}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _stream(url: str, part: Path, size: int, progress: Progress) -> str:
    digest = hashlib.sha256()
    here = 0
    request = urllib.request.Request(url, headers={"User-Agent": "rdpbench"})  # noqa: S310 (a card's or set's address)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer, part.open("wb") as out:  # noqa: S310
        announced = int(answer.headers.get("Content-Length") or size)
        while block := answer.read(_CHUNK):
            out.write(block)
            digest.update(block)
            here += len(block)
            progress(here, announced)
    # Reading in blocks ends quietly when the connection is cut.
    if here != announced:
        raise ConnectionError(f"the connection was cut after {here} of {announced} bytes")
    return digest.hexdigest()


def _tell(url: str, name: str, size: int) -> Progress:
    print(f"downloading {url} ({size / 1e6:.1f} MB)", file=sys.stderr, flush=True)
    told = 0

    def progress(here: int, whole: int) -> None:
        nonlocal told
        fifth = 5 * here // max(whole, 1)
        if fifth > told and (told or here < whole):  # a small file comes at once: nothing to tell
            told = fifth
            print(f"  {name}: {20 * fifth} %", file=sys.stderr, flush=True)

    return progress
