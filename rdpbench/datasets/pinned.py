"""Sets of which a sha256 per file ships with rdpbench: Kodak and the samples."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rdpbench.assets.download import download
from rdpbench.assets.hashes import file_sha256
from rdpbench.datasets.contract import Here, Pin, Sample
from rdpbench.datasets.manifest import Manifest, differences, manifest_sha256, present
from rdpbench.errors import ConfigError, ImageError
from rdpbench.needs import Need, Package
from rdpbench.paths import data_folders, variable

_MANIFEST = Path(__file__).with_name("kodak.sha256")
SOURCE = "https://r0k.us/graphics/kodak/kodak/"
BYTES = 15_394_305


@dataclass(frozen=True)
class Kodak:
    """The 24 images of the Kodak Lossless True Color Image Suite, 768 x 512 and 512 x 768, 8 bit RGB.

    Every file is held against ``kodak.sha256``; lookalikes, such as the 500 x 500 crops that denoising papers use, are
    refused. Looked for in ``data.path=FOLDER``, in ``$RDPBENCH_DATA/kodak`` and in the cache; else downloaded there.

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
        if self.path is not None or self._whole():
            return None
        return (
            f"Kodak is not here ({self.download_size}, free to use). Get {SOURCE} by hand and say data.path=FOLDER, or "
            f"put the folder 'kodak' into {variable('RDPBENCH_DATA')}, or the files into {data_folders('kodak')[-1]}"
        )

    def samples(self) -> Iterator[Sample]:
        """Yield the images in order with the sha256 that each must have; downloads the set if it is nowhere."""
        folder = self._folder()
        files = present(Manifest.read(_MANIFEST).files, folder, "Kodak's 24 images", "", partial=self.allow_partial)
        for name, sha256 in files.items():
            yield Sample(Path(name).stem, folder / name, ("photo",), sha256)

    def __len__(self) -> int:
        return 24

    def pinned(self) -> Pin:
        """The manifest that ships."""
        return Pin(Manifest.read(_MANIFEST).sha256(), "pinned")

    def here(self) -> Here:
        """What lies here, by names alone."""
        for folder in [Path(self.path).expanduser()] if self.path else data_folders("kodak"):
            if count := sum((folder / name).is_file() for name in Manifest.read(_MANIFEST).files):
                return Here(count, "pinned", folder)
        return Here(0, None)

    def fetch(self, beside: Sequence[str] = ()) -> None:
        """Download what is not here yet, each file checked."""
        for what in beside:
            raise ConfigError(f"{self.name} has no {what} to fetch")
        hint = self.missing() or ""
        for name, sha256 in Manifest.read(_MANIFEST).files.items():
            path = data_folders("kodak")[-1] / name
            if not path.is_file() or file_sha256(path) != sha256:
                path.unlink(missing_ok=True)
                download(self.source + name, path, sha256=sha256, size=BYTES // 24, hint=hint)

    def verify(self) -> list[str]:
        """Read every byte again and say what differs from the manifest."""
        folder = self._folder()
        return differences({folder / name: sha256 for name, sha256 in Manifest.read(_MANIFEST).files.items()})

    def _folder(self) -> Path:
        if self.path is not None:
            folder = Path(self.path).expanduser().absolute()
            if not folder.is_dir():
                raise ImageError(f"no such folder: {folder}, named by data.path={self.path}")
            return folder
        if self._whole() is None:
            self.fetch()
        return self._whole() or data_folders("kodak")[-1]

    def _whole(self) -> Path | None:
        names = Manifest.read(_MANIFEST).files
        return next((f for f in data_folders("kodak") if all((f / name).is_file() for name in names)), None)


@dataclass(frozen=True)
class Samples:
    """The offline default: eleven images that scikit-image and matplotlib carry, all free to use.

    Five photographs and six images that are none (text, a scan, medical, astronomy, a graphic): codecs that lean on
    pretrained models fail there first, so tables can be split by tag. Four images were JPEGs before (``jpeg-source``):
    they flatter JPEG a little. This set is for trying things; it is no benchmark that papers use.

    >>> len(Samples())
    11
    """

    name: str = "samples"
    protocol: str = "as-is"
    tag: str | None = None
    """Only the images with this tag, such as ``photo``."""
    licence: ClassVar[str] = "free to use, each as stated in samples.toml"
    download_size: ClassVar[str] = "in installed packages"
    needs: ClassVar[tuple[Need, ...]] = (Package("scikit-image", module="skimage"), Package("matplotlib"))

    def _images(self) -> dict[str, dict[str, Any]]:
        images = tomllib.loads(Path(__file__).with_name("samples.toml").read_text(encoding="utf-8"))
        return {name: image for name, image in images.items() if self.tag is None or self.tag in image["tags"]}

    def samples(self) -> Iterator[Sample]:
        """Yield the images in the order of ``samples.toml``."""
        for name, image in self._images().items():
            package, _, below = image.get("folder", "skimage/data").partition("/")
            # find_spec does not import the package: scikit-image takes a while to import.
            spec = importlib.util.find_spec(package)
            assert spec is not None
            assert spec.submodule_search_locations is not None
            path = Path(spec.submodule_search_locations[0]) / below / name
            yield Sample(path.stem, path, tuple(image["tags"]), image["sha256"], caption=image["caption"])

    def pinned(self) -> Pin:
        """Hash of the names and hashes of the images that are asked for."""
        return Pin(manifest_sha256((name, image["sha256"]) for name, image in self._images().items()), "pinned")

    def here(self) -> Here:
        """All of it lies in installed packages."""
        return Here(len(self), "pinned", next(self.samples()).path.parent)

    def verify(self) -> list[str]:
        """Read every byte and say what differs from the manifest."""
        return differences({sample.path: sample.sha256 for sample in self.samples()})

    def __len__(self) -> int:
        return len(self._images())
