"""Bitstreams under their sha256, the pictures of those that no decoder turns into one, and kept reconstructions.

::

    bitstreams/ab/abcd....bin      a bitstream
    bitstreams/packs/000001.bin    those of a segment's rows, one after the other
    bitstreams/packs/000001.npy    where each lies in it: its hash, place and size

Millions of small files are a burden to any file system. So when rows become a segment, their bitstreams become a pack.
Whatever is read is held against its hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import CodecError, StoreCorrupt
from rdpbench.image import Image, pixel_sha256, read_image
from rdpbench.lazy import pil
from rdpbench.paths import ODD, file_name, unwritable, write_file, written_whole
from rdpbench.results.store.columns import Hashes, Places, find
from rdpbench.results.store.schema import Row
from rdpbench.setting import digits

if TYPE_CHECKING:
    from rdpbench.results.store.store import Store

_ENTRY = np.dtype([("start", ">u8"), ("rest", "V24"), ("at", "<u8"), ("bytes", "<u8")])
"""A line of a pack's index: the hash in two parts, by the first of which lines are sorted, then place and size."""
_indexes: dict[Path, tuple[NDArray[Any], int]] = {}
"""Those that this process has read, and how large their packs are; packs do not change."""


@dataclass(frozen=True)
class Bitstreams:
    """The bitstreams of a run."""

    folder: Path

    def path(self, sha256: str) -> Path:
        """Where a bitstream with this hash lies that is in no pack.

        Raises:
            StoreCorrupt: it is no hash; a row may say anything, and nothing else is read.
        """
        if not is_sha256(sha256):
            raise StoreCorrupt(f"{sha256!r:.80} is no sha256, and names no bitstream")
        return self.folder / sha256[:2] / f"{sha256}.bin"

    def put(self, data: bytes) -> str:
        """Store a bitstream under its sha256; returns the hash."""
        sha256 = _sha256(data)
        path = self.path(sha256)
        try:
            _write_new(path, data)
        except FileExistsError:
            if path.read_bytes() != data:  # damaged, or another worker is writing the same: made whole either way
                write_file(path, data)
        except OSError as error:
            raise unwritable(path, error) from error
        return sha256

    def get(self, sha256: str) -> bytes:
        """The stored bytes, checked against their name.

        Raises:
            StoreCorrupt: the file is missing or its bytes changed.
        """
        path, data, again = self.path(sha256), None, "Delete it, and the command that made it makes it again"
        with contextlib.suppress(FileNotFoundError):
            data = path.read_bytes()
        if data is None:
            packed = self._packed(sha256)
            if packed is None:
                raise StoreCorrupt(f"bitstream {path} is missing; the command that made it makes it again")
            path, at, size = packed
            again = "Put the file back from a copy; or move it away, and the command that made them makes them again"
            with path.open("rb") as pack:
                pack.seek(at)
                data = pack.read(size)
        if _sha256(data) != sha256:
            raise StoreCorrupt(
                f"bitstream {sha256} changed after it was stored in {path}: the sha256 of its bytes is now "
                f"{_sha256(data)}. {again}"
            )
        return data

    def size(self, sha256: str) -> int | None:
        """Its bytes as they are stored; None if it is not there."""
        if not is_sha256(sha256):
            return None
        try:
            return self.path(sha256).stat().st_size
        except OSError:
            packed = self._packed(sha256)
            return packed[2] if packed else None

    def sizes(self, hashes: Hashes) -> Places:
        """The same of many; -1 for what is not there."""
        sizes = np.full(len(hashes), -1, np.int64)
        if packs := list(self._packs().values()):
            index = np.concatenate([pack[["start", "rest", "bytes"]] for pack in packs])
            index = index[np.argsort(index["start"].astype(np.uint64))]
            place = find(index, hashes.raw)
            sizes = np.where(place < 0, -1, index["bytes"][place].astype(np.int64))
        for number in np.flatnonzero(sizes < 0).tolist():
            size = self.size(hashes[number])
            sizes[number] = -1 if size is None else size
        return sizes

    def pack(self, hashes: Iterable[str]) -> None:
        """Put bitstreams that lie in files of their own into a pack; what is damaged or gone stays as it is."""
        folder = self.folder / "packs"
        loose = [sha for sha in dict.fromkeys(hashes) if is_sha256(sha) and self.path(sha).is_file()]
        if not loose:
            return
        folder.mkdir(exist_ok=True)
        number = 1 + max((int(path.stem) for path in folder.glob("[0-9]*.npy")), default=0)
        lines: list[tuple[bytes, int, int]] = []
        with (folder / f"{number:06d}.bin").open("wb") as pack:
            for sha in loose:
                data = self.path(sha).read_bytes()
                if _sha256(data) == sha:
                    lines.append((bytes.fromhex(sha), pack.tell(), len(data)))
                    pack.write(data)
            pack.flush()
            os.fsync(pack.fileno())
        index = np.zeros(len(lines), _ENTRY)
        for place, (sha256, at, size) in enumerate(sorted(lines)):
            index[place] = int.from_bytes(sha256[:8]), sha256[8:], at, size
        with written_whole(folder / f"{number:06d}.npy") as beside, beside.open("wb") as file:
            np.save(file, index, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        for sha256, _, _ in lines:
            self.path(sha256.hex()).unlink(missing_ok=True)

    def by_pack(self) -> Iterator[tuple[Path, list[str]]]:
        """The packs, with the hashes of what is in them."""
        for path, index in self._packs().items():
            yield path, [f"{int(line['start']):016x}{bytes(line['rest']).hex()}" for line in index]

    def _packs(self) -> dict[Path, NDArray[Any]]:
        """The indexes of all packs, as far as what they name is there: a pack may be gone, or cut."""
        folder = self.folder / "packs"
        packs = {}
        for path in sorted(folder.glob("[0-9]*.npy")) if folder.is_dir() else ():
            if path not in _indexes:
                try:
                    index = np.load(path, mmap_mode="r", allow_pickle=False)
                except (OSError, ValueError, EOFError) as error:
                    raise StoreCorrupt(f"{path} cannot be read: {error}. Put it back from a copy") from error
                if index.dtype != _ENTRY or index.ndim != 1:
                    raise StoreCorrupt(f"{path} is no index of bitstreams. Put it back from a copy")
                _indexes[path] = index, int((index["at"] + index["bytes"]).max(initial=0))
            (index, whole), pack = _indexes[path], path.with_suffix(".bin")
            size = pack.stat().st_size if pack.is_file() else 0
            if size < whole:
                index = index[index["at"] + index["bytes"] <= size]
            if len(index):
                packs[pack] = index
        return packs

    def _packed(self, sha256: str) -> tuple[Path, int, int] | None:
        """In which pack a bitstream lies, where, and its size."""
        hash_ = Hashes.joined([bytes.fromhex(sha256)])
        for path, index in self._packs().items():
            if (place := int(find(index, hash_.raw)[0])) >= 0:
                return path, int(index["at"][place]), int(index["bytes"][place])
        return None


def _write_new(path: Path, data: bytes) -> None:
    """Write a new file in its place; one that a kill leaves unfinished is spoken of by no row, and made whole later.

    Raises:
        FileExistsError: there is one.
    """
    try:
        file = path.open("xb")
    except FileNotFoundError:  # the first one in its folder; a run that was deleted or renamed meanwhile stays so
        for folder in (path.parents[1], path.parent):
            folder.mkdir(exist_ok=True)
        file = path.open("xb")
    try:
        with file:
            file.write(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def is_sha256(text: object) -> bool:
    """Is it a sha256, as hashes of bitstreams and pixels are written?

    >>> is_sha256("ab" * 32), is_sha256("../../etc/passwd")
    (True, False)
    """
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{64}", text) is not None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def reconstruction_path(store: Store, row: Row) -> Path:
    """Where a row's reconstruction lies, if it was kept."""
    setting = row.setting
    point = f"bpp{digits(setting.target)}" if setting.target is not None else "none"
    point = point if setting.rate is None else digits(setting.rate)
    stem = file_name(f"{file_name(row.image, ODD)}-{row.task_key[:8]}", ODD)
    return store.folder / "reconstructions" / file_name(row.codec, ODD) / point / f"{stem}.png"


def picture_path(store: Store, row: Row) -> Path:
    """Where the picture of a row lies that no decoder makes from its bitstream."""
    name = file_name(row.reconstruction_sha256)
    return store.folder / "pictures" / name[:2] / f"{name}.png"


def put_picture(store: Store, row: Row, pixels: Image) -> None:
    """Keep the picture of a row whose grade is not ``decoded``."""
    with written_whole(picture_path(store, row)) as beside:
        pil.fromarray(pixels).save(beside, format="PNG", compress_level=1)


def get_picture(store: Store, row: Row) -> Image:
    """The picture of a row whose grade is not ``decoded``.

    Raises:
        CodecError: it is gone, or holds other pixels.
    """
    path = picture_path(store, row)
    pixels = read_image(path).pixels if path.is_file() else None
    if pixels is None or pixel_sha256(pixels) != row.reconstruction_sha256:
        raise CodecError(f"the picture of {row.point}, {row.image} is gone or changed, and no decoder makes it: {path}")
    return pixels


def put_reconstruction(store: Store, row: Row, pixels: Image) -> None:
    """Write the PNG."""
    with written_whole(reconstruction_path(store, row)) as beside:
        pil.fromarray(pixels).save(beside, format="PNG", compress_level=1)
