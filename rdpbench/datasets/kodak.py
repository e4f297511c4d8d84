"""``kodak``: the 24 images of the Kodak Lossless True Color Image Suite, 768 x 512 and 512 x 768, 8 bit RGB.

Released by Eastman Kodak for unrestricted usage; there is no licence text. Every file is checked against
``kodak.sha256``; lookalikes, such as the 500 x 500 crops, are refused.

Looked for in ``data.path=FOLDER``, in ``$RDPBENCH_DATA/kodak``, in the cache; else downloaded to the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rdpbench.datasets.contract import Sample
from rdpbench.datasets.manifest import Manifest, file_sha256
from rdpbench.download import download
from rdpbench.errors import ImageError
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
    needs: ClassVar[tuple[Need, ...]] = ()

    def missing(self) -> str | None:
        """None if the set is here; else how to get it."""
        if self.path is not None or self._found():
            return None
        return (
            f"Kodak is not here ({BYTES / 1e6:.0f} MB in 24 files, free to use). Get {SOURCE} by hand and say "
            f"data.path=FOLDER, or put the folder 'kodak' into $RDPBENCH_DATA, or the files into {_target()}"
        )

    def samples(self) -> Iterator[Sample]:
        """Yield the images in order, each with its sha256 checked; downloads the set if it is nowhere."""
        manifest = Manifest.beside(__file__, "kodak.sha256")
        folder = self._folder(manifest)
        for name in manifest.files:
            yield Sample(Path(name).stem, manifest.check(folder, name), ("photo",))

    def __len__(self) -> int:
        return 24

    def _folder(self, manifest: Manifest) -> Path:
        if self.path is not None:
            folder = Path(self.path).expanduser()
            if not folder.is_dir():
                raise ImageError(f"no such folder: {folder}, named by data.path={self.path}")
            return folder
        if found := self._found():
            return found
        target, hint = _target(), self.missing() or ""
        for name, sha256 in manifest.files.items():
            if not (target / name).is_file() or file_sha256(target / name) != sha256:
                download(self.source + name, target / name, sha256=sha256, size=BYTES // 24, hint=hint)
        return target

    def _found(self) -> Path | None:
        names = Manifest.beside(__file__, "kodak.sha256").files
        return next((f for f in data_folders("kodak") if all((f / name).is_file() for name in names)), None)


def _target() -> Path:
    return data_folders("kodak")[-1]
