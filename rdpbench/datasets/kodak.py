"""``kodak``: the 24 images of the Kodak Lossless True Color Image Suite, 768 x 512 and 512 x 768, 8 bit RGB.

Released by Eastman Kodak for unrestricted usage; there is no licence text. Every file is held against
``kodak.sha256``; lookalikes, such as the 500 x 500 crops that denoising papers use, are refused.

Looked for in ``data.path=FOLDER``, in ``$RDPBENCH_DATA/kodak``, in the cache; else downloaded to the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rdpbench.assets.download import download
from rdpbench.assets.hashes import file_sha256
from rdpbench.datasets.contract import Here, Pin, Sample
from rdpbench.datasets.fetching import some
from rdpbench.datasets.manifest import Manifest, other_bytes
from rdpbench.errors import ConfigError, ImageError
from rdpbench.needs import Need
from rdpbench.paths import data_folders

SOURCE = "https://r0k.us/graphics/kodak/kodak/"
BYTES = 15_394_305


@dataclass(frozen=True)
class Kodak:
    """Kodak, 24 images.

    >>> len(Kodak())
    24
    """

    name: str = "kodak"
    protocol: str = "as-is"
    path: str | None = None
    """A folder that holds ``kodim01.png`` to ``kodim24.png``."""
    source: str = SOURCE
    allow_partial: bool = False
    needs: ClassVar[tuple[Need, ...]] = ()
    licence: ClassVar[str] = "released by Eastman Kodak for unrestricted usage; no licence text"
    download_size: ClassVar[str] = f"{BYTES / 1e6:.0f} MB in 24 files"

    def missing(self) -> str | None:
        """None if the set is here; else how to get it."""
        if self.path is not None or self._found():
            return None
        return (
            f"Kodak is not here ({BYTES / 1e6:.0f} MB in 24 files, free to use). Get {SOURCE} by hand and say "
            f"data.path=FOLDER, or put the folder 'kodak' into $RDPBENCH_DATA, or the files into {_target()}"
        )

    def samples(self) -> Iterator[Sample]:
        """Yield the images in order with the sha256 that each must have; downloads the set if it is nowhere."""
        manifest = _manifest()
        folder = self._folder()
        missing = [name for name in manifest.files if not (folder / name).is_file()]
        if len(missing) == len(self) or (missing and not self.allow_partial):
            raise ImageError(
                f"{len(missing)} of Kodak's {len(self)} images are missing in {folder}: {some(missing)}; "
                "allow_partial=true goes on with what is there, and marks the results"
            )
        for name, sha256 in manifest.files.items():
            if name not in missing:
                yield Sample(Path(name).stem, folder / name, ("photo",), sha256)

    def __len__(self) -> int:
        return 24

    def pinned(self) -> Pin:
        """The manifest that ships."""
        return Pin(_manifest().sha256(), "pinned")

    def here(self) -> Here:
        """What lies here, by names alone."""
        for folder in [Path(self.path).expanduser()] if self.path else data_folders("kodak"):
            if count := sum((folder / name).is_file() for name in _manifest().files):
                return Here(count, "pinned", folder)
        return Here(0, None)

    def fetch(self, beside: Sequence[str] = ()) -> None:
        """Download what is not here yet, each file checked."""
        for what in beside:
            raise ConfigError(f"{self.name} has no {what} to fetch")
        target, hint = _target(), self.missing() or ""
        for name, sha256 in _manifest().files.items():
            if not (target / name).is_file() or file_sha256(target / name) != sha256:
                (target / name).unlink(missing_ok=True)
                download(self.source + name, target / name, sha256=sha256, size=BYTES // 24, hint=hint)

    def verify(self) -> list[str]:
        """Read every byte again and say what differs from the manifest."""
        folder = self._folder()
        out = []
        for name, sha256 in _manifest().files.items():
            path = folder / name
            if not path.is_file():
                out.append(f"{path} is missing")
            elif (found := file_sha256(path)) != sha256:
                out.append(other_bytes(path, found, sha256))
        return out

    def _folder(self) -> Path:
        if self.path is not None:
            folder = Path(self.path).expanduser().absolute()
            if not folder.is_dir():
                raise ImageError(f"no such folder: {folder}, named by data.path={self.path}")
            return folder
        if self._found() is None:
            self.fetch()
        return self._found() or _target()

    def _found(self) -> Path | None:
        names = _manifest().files
        return next((f for f in data_folders("kodak") if all((f / name).is_file() for name in names)), None)


def _manifest() -> Manifest:
    return Manifest.beside(__file__, "kodak.sha256")


def _target() -> Path:
    return data_folders("kodak")[-1]
