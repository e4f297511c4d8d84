"""``samples``: the offline default, images that scikit-image and matplotlib carry, all free to use.

Five photographs and six images that are none (text, a scan, medical, astronomy, a graphic): codecs that lean on
pretrained models fail there first, so tables can be split by tag. Four images were JPEGs before (``jpeg-source``):
they flatter JPEG a little. This set is for trying things; it is no benchmark that papers use.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rdpbench.assets.hashes import file_sha256
from rdpbench.datasets.contract import Here, Pin, Sample
from rdpbench.datasets.manifest import Manifest, manifest_sha256
from rdpbench.needs import Need, Package

TAGS: dict[str, tuple[str, ...]] = {
    # name: tags; the comment gives the licence
    "astronaut.png": ("photo",),  # NASA, public domain
    "chelsea.png": ("photo",),  # Stefan van der Walt, CC0
    "coffee.png": ("photo",),  # Rachel Michetti, CC0
    "grace_hopper.jpg": ("photo", "jpeg-source"),  # US Navy, public domain
    "rocket.jpg": ("photo", "jpeg-source"),  # SpaceX, public domain
    "hubble_deep_field.jpg": ("astronomy", "jpeg-source"),  # NASA, public domain
    "ihc.png": ("medical",),  # CMMI, no known copyright restrictions
    "logo.png": ("graphic",),  # scikit-image, BSD-3-Clause
    "page.png": ("scan",),  # scikit-image, BSD-3-Clause
    "retina.jpg": ("medical", "jpeg-source"),  # Mikael Häggström, CC0
    "text.png": ("text",),  # Wikimedia, public domain
}
CAPTIONS: dict[str, str] = {
    "astronaut.png": "a woman in an orange space suit smiles in front of a flag and a model of a space shuttle",
    "chelsea.png": "the face of a tabby cat with green eyes",
    "coffee.png": "a cup of coffee on a saucer with a spoon on a wooden table",
    "grace_hopper.jpg": "an old woman in a navy uniform with glasses in front of a flag",
    "rocket.jpg": "a rocket on its launch pad at dusk between two towers",
    "hubble_deep_field.jpg": "hundreds of distant galaxies of many colours on a black sky",
    "ihc.png": "stained tissue under a microscope, brown and blue",
    "logo.png": "a round logo in green and orange with a white curve and the head of a snake",
    "page.png": "a scanned page with printed text about segmentation, unevenly lit",
    "retina.jpg": "the inside of an eye, orange with branching blood vessels",
    "text.png": "mathematical formulas handwritten on squared paper",
}
"""Ours, for codecs that take a caption; not to score against."""
FOLDERS = {"skimage": "data", "matplotlib": "mpl-data/sample_data"}


@dataclass(frozen=True)
class Samples:
    """Eleven images, embedded in installed packages.

    >>> len(Samples())
    11
    """

    name: str = "samples"
    protocol: str = "as-is"
    tag: str | None = None
    """Only the images with this tag, such as ``photo``."""
    licence: ClassVar[str] = "free to use, each as stated in samples.py"
    download_size: ClassVar[str] = "in installed packages"
    needs: ClassVar[tuple[Need, ...]] = (Package("scikit-image", module="skimage"), Package("matplotlib"))

    def _names(self) -> list[str]:
        return [name for name, tags in TAGS.items() if self.tag is None or self.tag in tags]

    def samples(self) -> Iterator[Sample]:
        """Yield the images in the order of `TAGS`, each with its sha256 in ``samples.sha256``."""
        manifest = Manifest.beside(__file__, "samples.sha256")
        for name in self._names():
            folder = _folder("matplotlib" if name == "grace_hopper.jpg" else "skimage")
            known = manifest.files[name]
            yield Sample(Path(name).stem, folder / name, TAGS[name], known, caption=CAPTIONS[name])

    def pinned(self) -> Pin:
        """Hash of the manifest's lines for the images that are asked for."""
        files = Manifest.beside(__file__, "samples.sha256").files
        return Pin(manifest_sha256((name, files[name]) for name in self._names()), "pinned")

    def here(self) -> Here:
        """All of it lies in installed packages."""
        return Here(len(self), "pinned", _folder("skimage"))

    def verify(self) -> list[str]:
        """Read every byte and say what differs from the manifest."""
        out = []
        for sample in self.samples():
            found = file_sha256(sample.path) if sample.path.is_file() else "missing"
            out += [f"{sample.path}: sha256 {found}, expected {sample.sha256}"] if found != sample.sha256 else []
        return out

    def __len__(self) -> int:
        return len(self._names())


def _folder(package: str) -> Path:
    # find_spec does not import the package: scikit-image takes a while to import.
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / FOLDERS[package]
