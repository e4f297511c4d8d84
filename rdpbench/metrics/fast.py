"""FID and KID for a first look: ``fid/clean/fast`` and others; never beside the numbers of ``fid/clean``.

The pixels are those of the preset, the network computes in another layout and, on a GPU, with multiplications rounded
to 10 bits (TF32). On a CPU features move by rounding only; on a GPU by about a thousandth. Arrays, cached originals and
values lie under names of their own, so that nothing of both is ever mixed.
"""

from __future__ import annotations

from typing import ClassVar

from rdpbench.metrics import fid, kid, presets
from rdpbench.metrics.contract import Features


class CleanFast(presets.Clean):
    """As `presets.Clean`.

    >>> CleanFast.dim
    2048
    """

    id: ClassVar[str] = "inception/clean/fast"
    fast: ClassVar[bool] = True


class LegacyTFFast(presets.LegacyTF):
    """As `presets.LegacyTF`.

    >>> LegacyTFFast.dim
    2048
    """

    id: ClassVar[str] = "inception/legacy-tf/fast"
    fast: ClassVar[bool] = True


class HiFiCPatchesFast(presets.HiFiCPatches):
    """As `presets.HiFiCPatches`.

    >>> HiFiCPatchesFast.dim
    2048
    """

    id: ClassVar[str] = "inception/hific-patch/fast"
    fast: ClassVar[bool] = True


class FIDCleanFast(fid.FIDClean):
    """``fid/clean``, computed fast.

    >>> FIDCleanFast.minimum_images
    2048
    """

    name: ClassVar[str] = "fid/clean/fast"
    features: ClassVar[type[Features]] = CleanFast


class FIDLegacyTFFast(fid.FIDLegacyTF):
    """``fid/legacy-tf``, computed fast.

    >>> FIDLegacyTFFast.minimum_images
    2048
    """

    name: ClassVar[str] = "fid/legacy-tf/fast"
    features: ClassVar[type[Features]] = LegacyTFFast


class FIDHiFiCPatchFast(fid.FIDHiFiCPatch):
    """``fid/hific-patch``, computed fast.

    >>> FIDHiFiCPatchFast.minimum_images
    100
    """

    name: ClassVar[str] = "fid/hific-patch/fast"
    features: ClassVar[type[Features]] = HiFiCPatchesFast


class KIDCleanFast(kid.KIDMetric):
    """``kid/clean``, computed fast.

    >>> KIDCleanFast.minimum_images
    1000
    """

    fid: ClassVar[type[fid.FIDMetric]] = FIDCleanFast


class KIDLegacyTFFast(kid.KIDMetric):
    """``kid/legacy-tf``, computed fast.

    >>> KIDLegacyTFFast.minimum_images
    1000
    """

    fid: ClassVar[type[fid.FIDMetric]] = FIDLegacyTFFast


class KIDHiFiCPatchFast(kid.KIDMetric):
    """``kid/hific-patch``, computed fast.

    >>> KIDHiFiCPatchFast.minimum_images
    100
    """

    fid: ClassVar[type[fid.FIDMetric]] = FIDHiFiCPatchFast
