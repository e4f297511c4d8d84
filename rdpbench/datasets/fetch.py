"""Download one file of a dataset, checked, or say in one message how to get it by hand."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import urllib.request
from pathlib import Path

from rdpbench.datasets.manifest import file_sha256
from rdpbench.errors import MissingNeed
from rdpbench.paths import cache_folder

TIMEOUT_S = 30


def data_folders(name: str) -> list[Path]:
    """Where a dataset may lie, best first; the last one is where downloads go."""
    given = os.environ.get("RDPBENCH_DATA")
    own = [Path(given).expanduser() / name] if given else []
    return [*own, cache_folder() / "data" / name]


def fetch_file(url: str, target: Path, sha256: str, hint: str) -> None:
    """Download ``url`` to ``target`` unless it is there already with the right sha256.

    Raises:
        MissingNeed: no network, a refusal, a cut connection or other bytes; the message ends with ``hint``.
    """
    if target.is_file() and file_sha256(target) == sha256:
        return
    print(f"downloading {url}", file=sys.stderr, flush=True)
    request = urllib.request.Request(url, headers={"User-Agent": "rdpbench"})  # noqa: S310 (addresses are the project's own)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            data = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise MissingNeed(f"cannot download {url}: {error}\n{hint}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise MissingNeed(f"{url} gave other bytes: sha256 {found}, expected {sha256}\n{hint}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(target)
