"""Weight files: a card for each, found on this machine or downloaded, and never used before their hash is checked.

Looked for, in this order: ``$RDPBENCH_WEIGHTS`` (a folder), PyTorch's hub folder, the Hugging Face cache, our own
cache. A file of the right name and the wrong bytes is an error, not a reason to look further.

Some files have no published hash. Their card says ``sha256=None``; the first use pins what was found in
``weights.lock`` in our cache, and their `identity` says ``unpinned``: another machine may have other bytes.

A model of several files (a configuration and tensors) is a `Folder` of cards; it is found as a whole, in one place.
Half the models of the Hugging Face hub call their file ``model.safetensors``: what comes from there lies below the
card's id, so that two of them do not meet.

Whatever opens a file of weights does it by `read_file`, and whatever asks for its hash by `sha256_of`: published files
and those of the user's alike.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from rdpbench.assets.download import download
from rdpbench.errors import CodecError, MissingNeed
from rdpbench.needs import Need
from rdpbench.paths import cache_folder
from rdpbench.progress import Progress


@dataclass(frozen=True)
class Card:
    """What is known about one file of weights."""

    id: str
    source: str
    """Address of the file."""
    revision: str
    """The publisher's name of this version."""
    file: str
    """File name, as the publisher's own tools store it; on the hub, its path inside the repository."""
    sha256: str | None
    """None where none is published; it is then pinned on first use."""
    bytes: int
    """0 where it is not known."""
    licence: str
    note: str
    """What it is and what it is for."""
    folder: str = ""
    """Id of the `Folder` that the file belongs to."""

    @property
    def by_hand(self) -> bool:
        """Is its address a page for a browser? What such a page sends to a program is not the file.

        >>> CARDS["alexnet-imagenet"].by_hand
        False
        """
        return urlsplit(self.source).hostname == "drive.google.com"

    @property
    def place(self) -> str:
        """Its path inside ``$RDPBENCH_WEIGHTS`` and our cache: the file's name, below an id if it is from the hub.

        >>> CARDS["alexnet-imagenet"].place
        'alexnet-owt-7be5be79.pth'
        """
        below = self.folder or (self.id if _on_hub(self) else "")
        return f"{below}/{self.file}" if below else self.file


@dataclass(frozen=True)
class Folder:
    """A model of several files in one repository of the Hugging Face hub.

    >>> model = Folder("tiny", "https://huggingface.co/me/tiny", "main", (("config.json", 70, None),), "MIT", "example")
    >>> model.cards[0].source
    'https://huggingface.co/me/tiny/resolve/main/config.json'
    """

    id: str
    source: str
    """Address of the repository's page."""
    revision: str
    """Commit or branch."""
    parts: tuple[tuple[str, int, str | None], ...]
    """Path inside the repository, bytes (0: not known) and sha256 (None: not published) of each file."""
    licence: str
    note: str

    @property
    def cards(self) -> tuple[Card, ...]:
        """A card for each file."""
        return tuple(
            Card(
                id=f"{self.id}/{file}",
                source=f"{self.source}/resolve/{self.revision}/{file}",
                revision=self.revision,
                file=file,
                sha256=sha256,
                bytes=size,
                licence=self.licence,
                note=self.note,
                folder=self.id,
            )
            for file, size, sha256 in self.parts
        )

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(size for _, size, _ in self.parts)


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
        Card(
            id="inception-2015-12-05",
            source=(
                "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
                "pt_inception-2015-12-05-6726825d.pth"
            ),
            revision="pytorch-fid, release fid_weights; converted from TensorFlow's inception-2015-12-05",
            file="pt_inception-2015-12-05-6726825d.pth",
            sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            bytes=95628359,
            licence="Apache-2.0 (TensorFlow models)",
            note="Inception-v3 of 2015-12-05, the network of FID and KID",
        ),
    )
}
"""The shipped cards, by id.

>>> CARDS["alexnet-imagenet"].bytes
244408911
"""


@dataclass(frozen=True)
class Weights(Need):
    """The need of a metric or codec for the file of a card, or for a folder of them."""

    card: Card | Folder

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
        places.append(Path(given).expanduser() / card.place)
    if _on_hub(card):
        repository, _, rest = urlsplit(card.source).path.strip("/").partition("/resolve/")
        revision, _, inside = rest.partition("/")
        home = Path(os.environ.get("HF_HOME", user_cache / "huggingface")).expanduser()
        hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
        stored = hub / f"models--{repository.replace('/', '--')}"
        named = stored / "refs" / revision
        commit = named.read_text().strip() if named.is_file() else revision
        places.append(stored / "snapshots" / commit / inside)
    else:
        torch_home = Path(os.environ.get("TORCH_HOME", user_cache / "torch")).expanduser()
        places.append(torch_home / "hub" / "checkpoints" / card.file)
    return [*places, own_folder() / card.place]


def _on_hub(card: Card) -> bool:
    address = urlsplit(card.source)
    return address.hostname == "huggingface.co" and "/resolve/" in address.path


def resolve(card: Card | Folder) -> Path:
    """Path of the card's file, or of the folder that holds all files; hashes checked (once for each state of a file).

    Raises:
        MissingNeed: the file is nowhere, or it holds other bytes than the card or ``weights.lock`` says.
    """
    if isinstance(card, Folder):
        return _resolve_folder(card)
    for path in candidates(card):
        if path.is_file():
            _check(card, path)
            return path
    raise MissingNeed(f"weights {card.id!r} are not on this machine\n{how_to_get(card)}")


def _resolve_folder(folder: Folder) -> Path:
    """The first place where all files are; one where only some are is told, and passed by."""
    halves = []
    for root, paths in _places(folder):
        absent = [card.file for card, path in zip(folder.cards, paths, strict=True) if not path.is_file()]
        if not absent:
            for card, path in zip(folder.cards, paths, strict=True):
                _check(card, path)
            return root
        if len(absent) < len(paths):
            halves.append(f"  {root} lacks {', '.join(absent)}\n")
    raise MissingNeed(f"weights {folder.id!r} are not on this machine\n{''.join(halves)}{how_to_get(folder)}")


def _places(folder: Folder) -> list[tuple[Path, tuple[Path, ...]]]:
    """Each place where the folder may lie, with the path of each file there."""
    depth = len(Path(folder.cards[0].file).parts) - 1
    return [
        (paths[0].parents[depth], paths) for paths in zip(*(candidates(card) for card in folder.cards), strict=True)
    ]


def how_to_get(card: Card | Folder) -> str:
    """Lines that say what the file is, where it comes from, how large it is, its licence and where to put it.

    >>> print(how_to_get(CARDS["alexnet-imagenet"]).splitlines()[2].strip())
    size     244 MB (244408911 bytes)
    """
    size = f"{card.bytes / 1e6:.0f} MB ({card.bytes} bytes)" if card.bytes else "not known"
    lines = [f"  what     {card.note} ({card.revision})", f"  from     {card.source}", f"  size     {size}"]
    lines.append(f"  licence  {card.licence}")
    if isinstance(card, Folder):
        lines += [f"  file     {part.file}: sha256 {_said(part.sha256)}" for part in card.cards]
        lines.append(f"  put them into {own_folder() / card.id}")
        yours = f"$RDPBENCH_WEIGHTS/{card.id}"
    else:
        lines += [f"  sha256   {_said(card.sha256)}", f"  put it   at {own_folder() / card.place}"]
        yours = f"$RDPBENCH_WEIGHTS/{card.place}"
    lines.append("           or into a folder of yours and type: export RDPBENCH_WEIGHTS=/where/the/folder/is")
    if "/" in yours.removeprefix("$RDPBENCH_WEIGHTS/") or isinstance(card, Folder):
        lines.append(f"           (there as {yours})")
    if isinstance(card, Card) and card.by_hand:
        return "\n".join([*lines, "           (only a browser gets it from that page)"])
    return "\n".join([*lines, "           or let it be downloaded: rdpbench run ... download=true"])


def _said(sha256: str | None) -> str:
    return sha256 or "not published; pinned on first use"


def fetch(card: Card | Folder, progress: Progress | None = None) -> Path:
    """Download the card's file, or the folder's files, into our cache unless here already; returns the path.

    A file appears under its name only when it is whole and its hash is right.

    Args:
        card: what to download.
        progress: called after each block; by default every fifth is told on stderr.

    Raises:
        MissingNeed: no network, a refusal, a cut connection, other bytes or too little disk; the message tells how to
            put the file there by hand.
    """
    if isinstance(card, Folder):
        if not any(all(path.is_file() for path in paths) for _, paths in _places(card)):
            for part in card.cards:
                if not (own_folder() / part.place).is_file():
                    _download(part, how_to_get(card), progress)
        return resolve(card)
    if not any(path.is_file() for path in candidates(card)):
        _download(card, how_to_get(card), progress)
    return resolve(card)


def _download(card: Card, hint: str, progress: Progress | None) -> None:
    if card.by_hand:
        raise MissingNeed(f"weights {card.id!r} are not on this machine\n{hint}")
    target = own_folder() / card.place
    download(card.source, target, sha256=card.sha256, size=card.bytes, hint=hint, progress=progress)


def identity(card: Card | Folder) -> str:
    """What enters a score's key: the sha256, with ``unpinned:`` before it where only this machine vouches for it.

    That of a folder is the sha256 over those of its files.

    >>> identity(CARDS["vgg16-imagenet"])[:8]
    '397923af'
    """
    if isinstance(card, Folder):
        files = [identity(part) for part in card.cards]
        together = hashlib.sha256("\n".join(files).encode()).hexdigest()
        return f"unpinned:{together}" if any(one.startswith("unpinned:") for one in files) else together
    return card.sha256 or f"unpinned:{_pins().get(card.id, 'unknown')}"


def read_tensors(card: Card | Folder) -> dict[str, Any]:
    """The tensors by name, on the CPU: of a ``.safetensors`` file, or by ``torch.load`` without pickled code.

    Of a folder, those of all its ``.safetensors`` files.

    Raises:
        MissingNeed: see `resolve`.
    """
    path = resolve(card)
    if isinstance(card, Folder):
        files = [path / part.file for part in card.cards if part.file.endswith(".safetensors")]
        return {name: tensor for file in files for name, tensor in read_file(file).items()}
    loaded = read_file(path)
    assert isinstance(loaded, dict), f"{card.file} holds a {type(loaded).__name__}, expected tensors by name"
    return loaded


class Inert:
    """Stands for an object of any class in a file: keeps its attributes, and calls nothing."""

    def __new__(cls, *_: object, **__: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Take and forget what the class would have been called with."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update({str(name): value for name, value in state.items()})

    def __setitem__(self, name: object, value: object) -> None:
        self.__dict__[str(name)] = value


HARMLESS = frozenset(
    {
        "argparse.Namespace",
        "types.SimpleNamespace",
        *(f"pathlib.{part}{kind}Path" for part in ("", "_local.") for kind in ("", "Posix", "Windows", "PurePosix")),
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
        "numpy.dtype",
        "numpy.ndarray",
        "lightning_fabric.utilities.data.AttributeDict",
        "lightning.fabric.utilities.data.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
    }
)
"""Classes of what training scripts leave beside tensors, settings and a best loss. They are read as `Inert`."""


def read_file(path: Path, *, inert: bool = False) -> Any:
    """What a file of weights holds, on the CPU: tensors by name, or what they are nested in. No code of it runs.

    Args:
        path: of safetensors if its name ends so, else of torch's format.
        inert: read objects of any class as `Inert`, not only those that are `HARMLESS`; such a large file is mapped.

    Raises:
        CodecError: damage, or objects that are more than tensors and settings.
    """
    import torch

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CodecError(f"{path} is damaged, or no safetensors file: {error}") from error
    modern = zipfile.is_zipfile(path)
    try:
        # Only new files can be asked what they hold, or be read where they lie.
        strange = set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) if modern else set()
        if (more := sorted(strange - HARMLESS)) and not inert:
            raise _more_than_tensors(path, ", ".join(more))
        with torch.serialization.safe_globals([(Inert, name) for name in sorted(HARMLESS.union(more))]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=modern and inert)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, OSError, AttributeError) as error:
        # torch's own words advise to run what is in the file.
        if named := re.search(r"(?:GLOBAL|[Uu]nsupported class|function) `?([A-Za-z_][\w.]+)", str(error)):
            raise _more_than_tensors(path, named[1]) from error
        raise CodecError(
            f"{path} is damaged or no file of weights, and was not opened: {type(error).__name__}"
        ) from error


def _more_than_tensors(path: Path, names: str) -> CodecError:
    return CodecError(
        f"{path} holds more than tensors and was not opened: {names}. Loading such objects can run code; save the "
        "tensors alone, where the training ran: torch.save(network.state_dict(), FILE)"
    )


def sha256_of(path: Path) -> str:
    """The sha256 of a file, read once for each state of it (size and times), on this machine."""
    state = path.stat()
    # The time of the last change of any kind is in it: who copies a file over another may set the other one.
    mark = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
    known = _read("checked.json").get(str(path.resolve()))
    if known and known[:-1] == mark:
        return str(known[-1])
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    _remember("checked.json", str(path.resolve()), [*mark, found])
    return found


def _check(card: Card, path: Path) -> None:
    found = sha256_of(path)
    expected = card.sha256 or _pins().get(card.id)
    if expected is None:
        _remember("weights.lock", card.id, {"sha256": found, "bytes": path.stat().st_size, "source": card.source})
    elif found != expected:
        lock = own_folder() / "weights.lock"
        told = "remove or replace it"
        if not card.sha256:
            told += f"; if the publisher's file is another now, take {card.id!r} out of {lock}"
        if not card.folder and path.suffix != ".metagraph":
            told += "; a file of your own is named, and nothing is replaced: codec.options.checkpoint=PATH"
        raise MissingNeed(
            f"{path} ({path.stat().st_size} bytes) is not the file that {'its card' if card.sha256 else lock} names: "
            f"sha256 {found}, expected {expected}; {told}\n{how_to_get(card)}"
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
