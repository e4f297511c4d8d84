"""The contract of a network, and images to bitstreams and back with it.

Where what is computed decides a symbol (`System.code`), one image is computed at a time, at one thread: the strings
then depend neither on the batch nor on the threads of whoever decodes. Only the transforms, where nearly all time
goes, see batches and all threads.

Seeded random weights: networks that code real bitstreams without a download, and never a picture worth seeing.

Random layers give latents of any size: too small, and every symbol is zero; too large, and the coder does not end.
So the last layer of each transform is scaled, by powers of two: what it is measured on may differ by rounding between
machines, a power of two does not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from rdpbench.codecs import legacy
from rdpbench.codecs.container import pack, unpack
from rdpbench.codecs.contract import Bitstream, Side, decoding, encoding
from rdpbench.codecs.learned.entropy import Coder, Reader, Writer
from rdpbench.codecs.learned.frames import Frame, check_pixels, size_of, to_images, to_planes
from rdpbench.errors import BitstreamError, UnsupportedImage
from rdpbench.image import Image
from rdpbench.networks.precision import one_thread, reproducible

if TYPE_CHECKING:
    from torch import Tensor, nn


class System(Protocol):
    """A network with its tables, ready to code. It is shared by codec objects: nothing in it may change."""

    frame: Frame
    device: str
    portable: bool

    def sections(self, height: int, width: int) -> dict[str, int]:
        """The strings of the format, in order, with their numbers of symbols, for a padded size."""
        ...

    def analyse(self, planes: Tensor, sides: Sequence[Side]) -> dict[str, Tensor]:
        """Latents ``(B, ...)`` of padded images: all that the encoder alone computes."""
        ...

    def code(self, coder: Coder, height: int, width: int, latents: Mapping[str, Tensor]) -> Tensor:
        """Code the latents of one image of a padded size, or at the decoder (no latents) read them."""
        ...

    def synthesise(self, latents: Tensor) -> Tensor:
        """Padded images ``(B, 3, H, W)`` of quantised latents."""
        ...


def encode_images(
    name: str,
    system: System,
    images: Sequence[Image],
    sides: Sequence[Side],
    max_pixels: int,
    printed: Callable[[Mapping[str, bytes], int, int], Mapping[str, float]] | None = None,
) -> list[Bitstream]:
    """A bitstream for each of several images of one size.

    Args:
        name: the codec's, for messages.
        system: what codes.
        images: of one size.
        sides: what the encoder may see beside each.
        max_pixels: larger images are refused.
        printed: further legacy rates, in bits, from the strings by section and the image's height and width.

    Raises:
        UnsupportedImage: sizes differ or are too large.
        CodecError: latents that no trained network makes.
    """
    import torch

    for image in images:
        check_pixels(*size_of(image), max_pixels, UnsupportedImage)
    height, width = size_of(images[0])
    padded = system.frame.padded(height, width)
    out = []
    with reproducible(), encoding(name):
        planes = to_planes(images, system.device, torch.float64 if system.portable else torch.float32)
        latents = system.analyse(system.frame.pad(planes), sides)
        for number in range(len(images)):
            writer = Writer(system.sections(*padded), portable=system.portable, device=system.device)
            with one_thread():
                system.code(writer, *padded, {key: value[number : number + 1] for key, value in latents.items()})
            strings = writer.finish()
            own = {key: value for key, value in strings.items() if key != "guard"}
            bits = legacy.rates(own, (height, width), padded) | dict(printed(own, height, width) if printed else {})
            out.append(pack(height, width, strings, legacy=json.dumps(bits)))
    return out


def decode_images(name: str, system: System, datas: Sequence[bytes], max_pixels: int) -> list[Image]:
    """The images of several bitstreams, of one size.

    Raises:
        BitstreamError: damage; sizes differ, or are larger than the codec takes.
    """
    import torch

    with reproducible(), decoding(name):
        quantised, sizes = [], set()
        for data in datas:
            height, width, latents = _read(system, data, max_pixels)
            quantised.append(latents)
            sizes.add((height, width))
        if len(sizes) != 1:
            raise BitstreamError(f"a batch holds images of one size, found {sorted(sizes)}")
        planes = system.synthesise(torch.cat(quantised))
        return to_images(system.frame.crop(planes, height, width))


def _read(system: System, data: bytes, max_pixels: int) -> tuple[int, int, Tensor]:
    names = [*(["guard"] if system.portable else []), *system.sections(system.frame.multiple, system.frame.multiple)]
    height, width, found = unpack(data, len(names))
    check_pixels(height, width, max_pixels, BitstreamError)
    padded = system.frame.padded(height, width)
    strings = dict(zip(names, found, strict=True))
    reader = Reader(system.sections(*padded), strings, portable=system.portable, device=system.device)
    with one_thread():
        latents = system.code(reader, *padded, {})
    reader.finish()
    return height, width, latents


Network = TypeVar("Network")
SEED = 20250701


def seeded(build: Callable[[], Network], seed: int = SEED) -> Network:
    """What ``build`` makes from a fixed seed; the generator of the process stays as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def picture(side: int = 128, seed: int = SEED) -> Tensor:
    """A smooth coloured pattern ``(1, 3, side, side)`` of [0, 1], to measure random transforms on."""
    import torch

    coarse = seeded(lambda: torch.rand(1, 3, 9, 9), seed)
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=True)


def last_layer(transform: nn.Module, leave_out: tuple[type, ...] = ()) -> nn.Module:
    """The last convolution of a transform, not looking into children of the given classes."""
    import torch

    children = [child for child in transform.children() if not isinstance(child, leave_out)]
    layers = [layer for child in children for layer in child.modules()]
    return [layer for layer in layers if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))][-1]


def rescale(layer: nn.Module, outputs: Callable[[], Tensor], target: float) -> None:
    """Multiply a layer's weight and bias by the power of two that brings the outputs' deviation nearest to the target.

    The outputs need not be the layer's own; what follows it should be nearly linear.
    """
    import torch

    with torch.no_grad():
        deviation = float(outputs().std())
        if not 0 < deviation < math.inf:
            raise ValueError(f"a random transform has outputs of deviation {deviation}")
        gain = 2.0 ** round(math.log2(target / deviation))
        for parameter in layer.parameters():
            parameter.mul_(gain)
