"""PerCo's rates, and where their weights are: a folder for each, as the open implementation's pipeline is saved.

Public are three of the seven, in one folder on Google Drive. Each is a whole pipeline: the U-Net and the hyper-encoder
that were trained, and Stable Diffusion 2.1's VAE and text tower beside them, so that the removal of Stable Diffusion
2.x from the hub does not matter here. Nobody published hashes; the first use pins what it finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rdpbench.codecs.diffusion.folders import Place
from rdpbench.errors import OutOfRange
from rdpbench.needs import Need
from rdpbench.weights import Card, Weights


@dataclass(frozen=True)
class Point:
    """A rate of the published system."""

    stride: int
    """Latents of the VAE along a side for one index."""
    entries: int
    """V, the size of the codebook."""
    steps: int
    """Of denoising, as published: 20 below 0.05 bpp, 5 above."""
    public: bool = False

    def grid(self, height: int, width: int, factor: int = 8) -> tuple[int, int]:
        """Rows and columns of indices for a padded size.

        >>> POINTS[0.0313].grid(512, 768)
        (32, 48)
        """
        side = factor * self.stride
        return height // side, width // side


POINTS = {
    0.0019: Point(8, 256, 20, public=True),
    0.0024: Point(8, 1024, 20),
    0.0098: Point(4, 1024, 20),
    0.0313: Point(2, 256, 20, public=True),
    0.0507: Point(2, 8196, 5),
    0.0937: Point(1, 64, 5),
    0.1250: Point(1, 256, 5, public=True),
}
"""By name: bits per pixel of the indices at 512 x 512, without the caption. 8196 is no slip of ours."""
DRIVE = "https://drive.google.com/drive/folders/11xHN61L7GqrJqEQbdtagbKBwMj1KZMf5"
TENSORS = {
    "unet": ("unet", "diffusion_pytorch_model.safetensors", 866_844_164),
    "vae": ("vae", "diffusion_pytorch_model.safetensors", 83_653_863),
    "text": ("text_encoder", "model.safetensors", 340_387_840),
    "hyper": ("hyper_enc", "diffusion_pytorch_model.safetensors", 5_905_505),
}
"""Parts of a pipeline: folder, file and about how many numbers, of 4 bytes each."""
_WHAT = {
    "unet": "the U-Net with channels for hyper-latents",
    "vae": "the VAE of Stable Diffusion 2.1",
    "text": "the text tower of Stable Diffusion 2.1",
    "hyper": "the hyper-encoder and its codebook",
}


def point(rate: float) -> Point:
    """The rate of that name.

    Raises:
        OutOfRange: there is none.

    >>> point(0.0098).entries
    1024
    """
    if rate not in POINTS:
        raise OutOfRange(f"nominal={rate!r} is none of PerCo's rates: {listed(POINTS)}")
    return POINTS[rate]


def listed(rates: Mapping[float, Point] | list[float]) -> str:
    """Rates as the official code writes them.

    >>> listed([0.125])
    '0.1250'
    """
    return ", ".join(f"{rate:.4f}" for rate in rates)


def public() -> list[float]:
    """The rates that there are weights of.

    >>> len(public())
    3
    """
    return [rate for rate, one in POINTS.items() if one.public]


def card(rate: float, part: str) -> Card:
    """A file of a published pipeline.

    >>> card(0.125, "unet").place
    'perco/0.1250/unet/diffusion_pytorch_model.safetensors'
    """
    folder, file, numbers = TENSORS[part]
    return Card(
        id=f"perco/{rate:.4f}/{folder}",
        source=DRIVE,
        revision="as linked by Nikolai10/PerCo at da3be39; open it with a browser",
        file=f"{folder}/{file}",
        sha256=None,
        bytes=4 * numbers,
        licence="Apache-2.0, as the repository; derived from Stable Diffusion 2.1 (CreativeML OpenRAIL++-M)",
        note=(
            f"PerCo (SD) at nominally {rate:.4f} bpp: {_WHAT[part]}; the folder there ends in {f'{rate:.4f}'[1:]}bpp, "
            "and the size is that of the numbers inside"
        ),
        folder=f"perco/{rate:.4f}",
    )


@dataclass(frozen=True)
class Unpublished(Need):
    """The need for weights that nobody can get.

    >>> Unpublished(0.0098).missing().splitlines()[0]
    'no weights of PerCo at nominally 0.0098 bpp are public'
    """

    rate: float

    def missing(self) -> str:
        return (
            f"no weights of PerCo at nominally {self.rate:.4f} bpp are public\n"
            f"  there are those of {listed(public())}: rate={','.join(f'{one:g}' for one in public())}\n"
            "  yours: codec.options.pipeline=/a/folder/as/the/official/code/saves/it; untrained: weights=random"
        )


def sources(rate: float, pipeline: str = "") -> dict[str, Place | Weights]:
    """Where each part of a rate's pipeline comes from; of a rate without public weights, where it would.

    Args:
        rate: one of `POINTS`.
        pipeline: a folder of the user's.
    """
    if pipeline:
        return {part: Place(str(Path(pipeline) / folder)) for part, (folder, _, _) in TENSORS.items()}
    return {part: Weights(card(rate, part)) for part in TENSORS}


def needs(rate: float, pipeline: str = "") -> tuple[Need, ...]:
    """The files of a rate, or the need for what is not public."""
    if not pipeline and not POINTS[rate].public:
        return (Unpublished(rate),)
    return tuple(sources(rate, pipeline).values())
