"""What goes into Inception under each preset's name: the resize, the scaling, and whole images or patches.

FID and KID over the same pixels and the same network share their features, by `id`. Names that differ in data or in
image size alone (``hfd-256``, ``perco-512``) are presets of the metrics in ``fid.py`` and ``kid.py``, not of features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rdpbench.image import Image
from rdpbench.metrics.patches import hific
from rdpbench.networks import inception
from rdpbench.networks.inception import InceptionFeatures

if TYPE_CHECKING:
    from torch import Tensor


class Clean(InceptionFeatures):
    """clean-fid's: bicubic, antialiased, never rounded.

    >>> Clean.dim
    2048
    """

    id: ClassVar[str] = "inception/clean"

    def prepare(self, images: Tensor) -> Tensor:
        return inception.around_128(inception.clean(images))


class LegacyTF(InceptionFeatures):
    """TensorFlow 1's resize, as FID's authors, torch-fidelity and torchmetrics before 1.8 have it.

    >>> LegacyTF.dim
    2048
    """

    id: ClassVar[str] = "inception/legacy-tf"

    def prepare(self, images: Tensor) -> Tensor:
        return inception.around_128(inception.tf1(images))


class LegacyTorch(InceptionFeatures):
    """pytorch-fid's: values of [0, 1] resized bilinearly without antialiasing, then stretched to [-1, 1].

    >>> LegacyTorch.dim
    2048
    """

    id: ClassVar[str] = "inception/legacy-torch"

    def prepare(self, images: Tensor) -> Tensor:
        return 2 * inception.plain(images / 255) - 1


class TorchMetrics(InceptionFeatures):
    """torchmetrics' default from 1.8 on: bilinear, antialiased.

    >>> TorchMetrics.dim
    2048
    """

    id: ClassVar[str] = "inception/tm-1.8"

    def prepare(self, images: Tensor) -> Tensor:
        return inception.around_128(inception.antialiased(images))


class HiFiCPatches(LegacyTF):
    """Patches of 256 x 256 on two grids, each enlarged to 299 as ``legacy-tf`` does: HiFiC, MS-ILLM, GLC.

    >>> import numpy as np
    >>> len(HiFiCPatches().pieces(np.zeros((512, 768, 3), np.uint8)))
    8
    """

    id: ClassVar[str] = "inception/hific-patch"

    def pieces(self, image: Image) -> Sequence[Image]:
        return tuple(hific(image))


class HiFiCPatchesAsTheyAre(HiFiCPatches):
    """The same patches, which the network sees at 256 x 256 without a resize.

    >>> HiFiCPatchesAsTheyAre.dim
    2048
    """

    id: ClassVar[str] = "inception/hific-patch-noresize"

    def prepare(self, images: Tensor) -> Tensor:
        return inception.around_128(images.float())
