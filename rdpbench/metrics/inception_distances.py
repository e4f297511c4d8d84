"""FID (Heusel et al., NeurIPS 2017) and KID (Binkowski et al., ICLR 2018) under the protocols that papers use.

A preset says which images enter the network, and how: `FEATURES` has the resize, the scaling, and whole images or
patches; `PRESETS` has a name for each use that papers make of them. The distances are the same for all presets, and
their numbers are not comparable.

``fid/<preset>`` is the Fréchet distance. It is refused where a set has fewer rows than a feature has entries (2048):
the covariance is singular then and the value far too high.

``kid/<preset>`` is the mean over 100 subsets of 1000 feature vectors with the indices that torch-fidelity draws from
its seed 2020: the same at every rate, as long as the images are the same. ``/full`` takes all pairs, ``/split`` those
of different images alone (`rdpbench.metrics.mmd`). Values are not scaled by 1000, and may be negative.

``.../fast`` is for a first look, never beside the numbers without it: the network computes in another layout and, on a
GPU, with multiplications rounded to 10 bits (TF32). On a CPU features move by rounding only; on a GPU by about a
thousandth. Arrays, cached originals and values lie under names of their own, so that nothing of both is ever mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.weights import Weights, read_tensors
from rdpbench.errors import MetricError
from rdpbench.image import Image, check_image
from rdpbench.lazy import Tensor, torch
from rdpbench.metrics import frechet
from rdpbench.metrics.contract import Array, Estimate, MetricOfSets, NetworkFeatures, by_name, variant
from rdpbench.metrics.mmd import Discrepancy, KernelMetric, Owners, kid
from rdpbench.metrics.sets import Rows, stack
from rdpbench.needs import Package
from rdpbench.networks import inception
from rdpbench.networks.precision import exact, quick

T = TypeVar("T")

PATCHED_IMAGES = 100
"""Fewest images of a metric over patches: as many as DIV2K's validation set has, the smallest it is printed for."""
BATCH = 16
"""Images, or patches, in the network at once."""


class InceptionFeatures(NetworkFeatures[Any]):
    """What the presets share; ``given`` are the tensors of the network."""

    needs = (Package("torchvision"), Weights(inception.CARD))
    dim = inception.DIM
    preload = ("torch", "torchvision")
    patched: ClassVar[bool] = False
    """Does the network see patches of 256 x 256 (`hific`), or whole images?"""
    fast: ClassVar[bool] = False
    """Rounded by TF32 on a GPU, in whatever layout is fastest; only under an `id` that says so."""

    @staticmethod
    def scaled(images: Tensor) -> Tensor:
        """The network's input, of images ``uint8 (n, 3, H, W)``."""
        raise NotImplementedError

    def load(self, given: Mapping[str, Tensor] | None) -> Any:
        tensors = read_tensors(inception.CARD) if given is None else given
        return inception.build_inception(tensors).to(self.device)

    def extract(self, images: Sequence[Image], **_: Any) -> list[NDArray[np.float32]]:
        """One row, or one for each patch; `MetricError` also for an image that is too small for a patch."""
        whole = [check_image(image, f"{self.id}: the image", MetricError) for image in images]
        cut = [tuple(hific(image)) if self.patched else (image,) for image in whole]
        rows = [np.empty((0, self.dim), np.float32)]
        layout = torch.channels_last if self.fast else torch.contiguous_format
        network = self.network
        with torch.inference_mode(), quick() if self.fast else exact():
            batches = (batch.to(memory_format=layout) for batch in self._batches(cut))
            rows += [inception.pool3(network, batch).cpu().numpy() for batch in batches]
        ends = np.cumsum([len(pieces) for pieces in cut])
        return np.split(np.concatenate(rows), ends[:-1]) if cut else []

    def _batches(self, cut: Sequence[Sequence[Image]]) -> Iterator[Tensor]:
        """The network's inputs, `BATCH` at a time; prepared image by image, so that grouping does not touch them."""
        waiting: list[Tensor] = []
        for pieces in cut:
            for start in range(0, len(pieces), BATCH):
                stacked = np.stack(pieces[start : start + BATCH])
                planes = torch.from_numpy(stacked).to(self.device).permute(0, 3, 1, 2).contiguous()
                waiting.extend(self.scaled(planes))
            while len(waiting) >= BATCH:
                yield torch.stack(waiting[:BATCH])
                del waiting[:BATCH]
        if waiting:
            yield torch.stack(waiting)


def corners(height: int, width: int, size: int = 256) -> Iterator[tuple[int, int]]:
    """Top and left of each of HiFiC's patches (Mentzer et al., NeurIPS 2020), as MS-ILLM's code cuts them.

    A grid of ``size`` x ``size`` patches from the first pixel on, and a second grid half a patch further down and
    right, which exists where both sides hold one and a half patches; row by row. What does not fill a patch is left
    out. HiFiC's text counts fewer patches in the second grid (``(H // f - 1) * (W // f - 1)``), but 28,650 for the 428
    images of CLIC2020 and 6,573 for DIV2K's validation set, the totals that papers print, are those of the code.

    Raises:
        MetricError: ``size`` is odd or not positive: half a patch would not be defined.

    >>> list(corners(384, 512))
    [(0, 0), (0, 256), (128, 128)]
    >>> len(list(corners(1365, 2048)))
    68
    """
    if size < 2 or size % 2:
        raise MetricError(f"patches have an even side of 2 pixels or more, found {size}")
    for shift in (0, size // 2):
        if min(height, width) >= size + shift:
            for top in range(shift, height - size + 1, size):
                for left in range(shift, width - size + 1, size):
                    yield top, left


def hific(image: Image, size: int = 256) -> list[Image]:
    """The patches of an image, ``uint8 (size, size, 3)`` each, as views of it.

    Raises:
        MetricError: an image without a single patch, which would drop out of the set without a word.

    >>> [int(patch[0, 0, 0]) for patch in hific(np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, 2), size=2)]
    [0, 2, 8, 10, 5]
    """
    height, width = check_image(image, "patches: the image", MetricError).shape[:2]
    patches = [image[top : top + size, left : left + size] for top, left in corners(height, width, size)]
    if not patches:
        raise MetricError(
            f"an image of {width} x {height} (width x height) holds no patch of {size} x {size}: choose smaller "
            "patches, or a metric over whole images"
        )
    return patches


_SCALED: dict[str, Callable[[Tensor], Tensor]] = {
    # clean-fid's: bicubic, antialiased, never rounded.
    "clean": lambda images: inception.around_128(inception.clean(images)),
    # TensorFlow 1's resize, as FID's authors, torch-fidelity and torchmetrics before 1.8 have it.
    "legacy-tf": lambda images: inception.around_128(inception.tf1(images)),
    # pytorch-fid's: values of [0, 1] resized bilinearly without antialiasing, then stretched to [-1, 1].
    "legacy-torch": lambda images: 2 * inception.plain(images / 255) - 1,
    # torchmetrics' default from 1.8 on: bilinear, antialiased.
    "tm-1.8": lambda images: inception.around_128(inception.antialiased(images)),
    # Patches, each enlarged to 299 as legacy-tf does: HiFiC, MS-ILLM, GLC.
    "hific-patch": lambda images: inception.around_128(inception.tf1(images)),
    # The same patches, which the network sees at 256 x 256.
    "hific-patch-noresize": lambda images: inception.around_128(images.float()),
}
FEATURES = {
    name: variant(
        InceptionFeatures, f"inception/{name}", scaled=staticmethod(scaled), patched=name.startswith("hific-patch")
    )
    for name, scaled in _SCALED.items()
}
FAST = ("clean", "hific-patch", "legacy-tf")
FEATURES |= {f"{name}/fast": variant(FEATURES[name], f"inception/{name}/fast", fast=True) for name in FAST}


@dataclass(frozen=True)
class InceptionPreset:
    """Data and pixels of a FID and a KID."""

    source: str
    features: str
    """In `FEATURES`."""
    side: int | None = None
    """Of the images, where the preset is for one size."""
    reference: str = "originals"
    unverified: str = ""
    """What no source confirms."""


PRESETS = {
    "clean": InceptionPreset("Parmar et al., CVPR 2022 (clean-fid), whole images", "clean"),
    "legacy-tf": InceptionPreset("Heusel et al., NeurIPS 2017 (torch-fidelity), whole images", "legacy-tf"),
    "legacy-torch": InceptionPreset("pytorch-fid 0.3, whole images", "legacy-torch"),
    "tm-1.8": InceptionPreset("torchmetrics 1.8 and later, whole images", "tm-1.8"),
    # What compression papers report on CLIC2020 and DIV2K: 28,650 patches of the 428 images of CLIC2020 test.
    "hific-patch": InceptionPreset(
        "Mentzer et al., NeurIPS 2020 (HiFiC), as in MS-ILLM's code: 256 px patches, two grids", "hific-patch"
    ),
    # Another number by 0.01 to 0.1 on CLIC2020.
    "hific-patch-noresize": InceptionPreset(
        "as fid/hific-patch, the network fed 256 px (NeuralCompression, issue 223)", "hific-patch-noresize"
    ),
    "hfd-256": InceptionPreset(
        "Hoogeboom et al., 2023 (HFD): 30,000 images of COCO at 256 px",
        "legacy-tf",
        side=256,
        unverified="the paper could not be read in full; the resize to 299 is taken to be TensorFlow 1's",
    ),
    "perco-512": InceptionPreset(
        "Careil et al., ICLR 2024 (PerCo): 30,000 images of COCO at 512 px",
        "clean",
        side=512,
        unverified="PerCo's own code is not public; the implementation is that of PerCo (SD), clean-fid",
    ),
    "taco-299/whole": InceptionPreset(
        "Lee et al., ICML 2024 (TACO): 30,504 images of COCO val2014",
        "legacy-tf",
        unverified="the released code has no FID, and the paper is said to resize to 299 without saying whether whole "
        "images or patches; the filter is taken to be TensorFlow 1's",
    ),
    # Reconstructions against another set of images, resized as the paper does.
    "text-sketch": InceptionPreset(
        "Lei et al., 2023 (Text+Sketch), by torch-fidelity against CLIC2020's training set",
        "legacy-tf",
        reference="clic2020-train@text-sketch-512",
    ),
}
PRESETS["taco-299/patch"] = replace(PRESETS["taco-299/whole"], features="hific-patch")
PRESETS |= {f"{name}/fast": replace(PRESETS[name], features=f"{name}/fast") for name in FAST}


class FID(MetricOfSets):
    """Fréchet distance of the rows of all images, in float64; the order of the images does not matter."""

    minimum_images = 2048

    def reduce(self, reference: Sequence[Array], distorted: Sequence[Array]) -> Estimate:
        first, second = (stack(arrays, self.name, self.features.dim) for arrays in (reference, distorted))
        distance = frechet.distance_of_rows(first, second)
        few = f"{self.name}: {min(distance.n)} feature vectors of {distance.dim} entries give a singular covariance"
        return Estimate(distance.value, reason="" if distance.reliable else few, reliable=distance.reliable)

    def left_out(
        self, reference: Sequence[Array], distorted: Sequence[Array], blocks: Sequence[Sequence[int]]
    ) -> list[float]:
        """The distances without each block of images: moments of the blocks add up, so that rows are read once."""
        sides = (
            frechet.without_each(
                [frechet.moments(stack([side[n] for n in block], self.name, self.features.dim)) for block in blocks]
            )
            for side in (reference, distorted)
        )
        return [frechet.distance(*pair).value for pair in zip(*sides, strict=True)]


class KID(KernelMetric):
    """Kernel distance of the rows of all images, in float64; in the order of the image ids."""

    subsets: ClassVar[int] = 100
    size: ClassVar[int | None] = 1000
    """Rows of a subset; None for the full set."""

    def discrepancy(self, reference: Rows, distorted: Rows, images: tuple[Owners, Owners] | None) -> Discrepancy:
        """Raises `MetricError`: fewer rows than a subset has."""
        if self.size is None:
            return super().discrepancy(reference, distorted, images)
        return kid(reference, distorted, subsets=self.subsets, size=self.size, images=images)


def _distance(base: type[T], name: str, preset: InceptionPreset, **data: Any) -> type[T]:
    data |= {"side": preset.side, "reference": preset.reference, "unverified": preset.unverified}
    return variant(base, name, features=FEATURES[preset.features], **data)


def _fid(name: str, preset: InceptionPreset) -> type[FID]:
    images = PATCHED_IMAGES if FEATURES[preset.features].patched else FID.minimum_images
    return _distance(FID, f"fid/{name}", preset, source=preset.source, minimum_images=images)


def _kid(name: str, preset: InceptionPreset, end: str = "") -> type[KID]:
    size = None if end else 100 if name == "text-sketch" else 1000  # text-sketch: as the paper's scripts for CLIC2020
    data = {
        "source": f"Binkowski et al., ICLR 2018; images as fid/{name}: {preset.source}",
        "size": size,
        "pairs": "apart" if end == "/split" else "unbiased",
        "minimum_images": PATCHED_IMAGES if FEATURES[preset.features].patched or size is None else size,
    }
    if name in FAST:  # which have a split, too
        data["split_name"] = f"kid/{name}/split"
    return _distance(KID, f"kid/{name}{end}", preset, **data)


METRICS = by_name(
    *(_fid(name, preset) for name, preset in PRESETS.items()),
    *(_kid(name, preset) for name, preset in PRESETS.items()),
    *(_kid(name, preset, "/full") for name, preset in PRESETS.items() if not name.endswith("/fast")),
    *(_kid(name, PRESETS[name], "/split") for name in FAST),
)
