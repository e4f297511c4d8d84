"""Weight files: a card for each, found on this machine or downloaded, and never used before their hash is checked.

Looked for, in this order: ``$RDPBENCH_WEIGHTS`` (a folder), PyTorch's hub folder, the Hugging Face cache, our own
cache. A file of the right name and the wrong bytes is an error, not a reason to look further.

Some files have no published hash. Their card says ``sha256=None``; the first use pins what was found in
``weights.lock`` in our cache, and their `identity` says ``unpinned``: another machine may have other bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from rdpbench.download import Progress, download
from rdpbench.errors import MissingNeed
from rdpbench.needs import Need
from rdpbench.paths import cache_folder


@dataclass(frozen=True)
class Card:
    """What is known about one file of weights."""

    id: str
    source: str
    """Address of the file."""
    revision: str
    """The publisher's name of this version."""
    file: str
    """File name, as the publisher's own tools store it."""
    sha256: str | None
    """None where none is published; it is then pinned on first use."""
    bytes: int
    licence: str
    note: str
    """What it is and what it is for."""


CARDS = {
    card.id: card
    for card in (
        Card(
            id="alexnet-imagenet",
            source="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            revision="torchvision AlexNet_Weights.IMAGENET1K_V1",
            file="alexnet-owt-7be5be79.pth",
            sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            bytes=244408911,
            licence="torchvision is BSD-3-Clause; the weights state no licence of their own",
            note="AlexNet, the trunk of LPIPS (alex)",
        ),
        Card(
            id="vgg16-imagenet",
            source="https://download.pytorch.org/models/vgg16-397923af.pth",
            revision="torchvision VGG16_Weights.IMAGENET1K_V1",
            file="vgg16-397923af.pth",
            sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            bytes=553433881,
            licence="torchvision is BSD-3-Clause; the weights state no licence of their own",
            note="VGG16, the trunk of LPIPS (vgg)",
        ),
    )
}
"""The shipped cards, by id.

>>> CARDS["alexnet-imagenet"].bytes
244408911
"""


@dataclass(frozen=True)
class Weights(Need):
    """The need of a metric or codec for the file of a card."""

    card: Card

    def missing(self) -> str | None:
        """None if the file is here with the right hash; else what, where from, how large, which licence, what to do."""
        try:
            resolve(self.card)
        except MissingNeed as error:
            return str(error)
        return None


def own_folder() -> Path:
    """Where downloads go, beside ``weights.lock``."""
    return cache_folder() / "weights"


def candidates(card: Card) -> list[Path]:
    """Every place where the file may lie, best first; the last is where `fetch` puts it."""
    user_cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    places = []
    if given := os.environ.get("RDPBENCH_WEIGHTS"):
        places.append(Path(given).expanduser() / card.file)
    torch_home = Path(os.environ.get("TORCH_HOME", user_cache / "torch")).expanduser()
    places.append(torch_home / "hub" / "checkpoints" / card.file)
    address = urlsplit(card.source)
    if address.hostname == "huggingface.co" and "/resolve/" in address.path:
        repository, _, rest = address.path.strip("/").partition("/resolve/")
        revision, _, inside = rest.partition("/")
        home = Path(os.environ.get("HF_HOME", user_cache / "huggingface")).expanduser()
        hub = (
            Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser() / f"models--{repository.replace('/', '--')}"
        )
        named = hub / "refs" / revision
        commit = named.read_text().strip() if named.is_file() else revision
        places.append(hub / "snapshots" / commit / inside)
    return [*places, own_folder() / card.file]


def resolve(card: Card) -> Path:
    """Path of the card's file, its hash checked (once for each path, size and time of change).

    Raises:
        MissingNeed: the file is nowhere, or it holds other bytes than the card or ``weights.lock`` says.
    """
    for path in candidates(card):
        if path.is_file():
            _check(card, path)
            return path
    raise MissingNeed(f"weights {card.id!r} are not on this machine\n{how_to_get(card)}")


def how_to_get(card: Card) -> str:
    """Lines that say what the file is, where it comes from, how large it is, its licence and where to put it.

    >>> print(how_to_get(CARDS["alexnet-imagenet"]).splitlines()[2].strip())
    size     244 MB (244408911 bytes)
    """
    return "\n".join(
        [
            f"  what     {card.note} ({card.revision})",
            f"  from     {card.source}",
            f"  size     {card.bytes / 1e6:.0f} MB ({card.bytes} bytes)",
            f"  licence  {card.licence}",
            f"  sha256   {card.sha256 or 'not published; pinned on first use'}",
            f"  put it   at {own_folder() / card.file}",
            "           or into a folder of yours and type: export RDPBENCH_WEIGHTS=/where/the/folder/is",
            "           or let it be downloaded: rdpbench run ... download=true",
        ]
    )


def fetch(card: Card, progress: Progress | None = None) -> Path:
    """Download the card's file into our cache unless it is here already; returns its path.

    The file appears under its name only when it is whole and its hash is right.

    Args:
        card: what to download.
        progress: called after each block; by default every fifth is told on stderr.

    Raises:
        MissingNeed: no network, a refusal, a cut connection, other bytes or too little disk; the message tells how to
            put the file there by hand.
    """
    if any(path.is_file() for path in candidates(card)):
        return resolve(card)
    download(
        card.source,
        own_folder() / card.file,
        sha256=card.sha256,
        size=card.bytes,
        hint=how_to_get(card),
        progress=progress,
    )
    return resolve(card)


def identity(card: Card) -> str:
    """What enters a score's key: the sha256, with ``unpinned:`` before it where only this machine vouches for it.

    >>> identity(CARDS["vgg16-imagenet"])[:8]
    '397923af'
    """
    return card.sha256 or f"unpinned:{_pins().get(card.id, 'unknown')}"


def read_tensors(card: Card) -> dict[str, Any]:
    """The file's tensors by name, on the CPU; ``torch.load`` without pickled code.

    Raises:
        MissingNeed: see `resolve`.
    """
    import torch

    loaded = torch.load(resolve(card), map_location="cpu", weights_only=True)
    assert isinstance(loaded, dict), f"{card.file} holds a {type(loaded).__name__}, expected tensors by name"
    return loaded


def _check(card: Card, path: Path) -> None:
    state = path.stat()
    mark = [state.st_size, state.st_mtime_ns]
    known = _read("checked.json").get(str(path.resolve()))
    if known and known[:2] == mark:
        found = str(known[2])
    else:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        _remember("checked.json", str(path.resolve()), [*mark, found])
    expected = card.sha256 or _pins().get(card.id)
    if expected is None:
        _remember("weights.lock", card.id, {"sha256": found, "bytes": state.st_size, "source": card.source})
    elif found != expected:
        vouches = "its card" if card.sha256 else str(own_folder() / "weights.lock")
        raise MissingNeed(
            f"{path} ({state.st_size} bytes) is not the file that {vouches} names: "
            f"sha256 {found}, expected {expected}; remove or replace it\n{how_to_get(card)}"
        )


def _pins() -> dict[str, str]:
    return {card: str(pin["sha256"]) for card, pin in _read("weights.lock").items()}


def _read(name: str) -> dict[str, Any]:
    try:
        content = json.loads((own_folder() / name).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(name: str, key: str, value: object) -> None:
    """Add an entry to a JSON file of our cache. A cache that cannot be written costs time, not the run."""
    try:
        folder = own_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"):
            content = _read(name) | {key: value}
            part = folder / f".{name}.{os.getpid()}.part"
            part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
            part.replace(folder / name)
    except OSError as error:
        print(f"cannot write {own_folder() / name}: {error}", file=sys.stderr)
