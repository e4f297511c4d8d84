"""A network with its tables: it codes images to bitstreams and back.

Where what is computed decides a symbol (`System.code`), one image is computed at a time, at one thread: the strings
then depend neither on the batch nor on the threads of whoever decodes. Only the transforms, where nearly all time
goes, see batches and all threads.

At the end, seeded random weights: networks that code real bitstreams without a download. Random layers give latents of
any size: too small, and every symbol is zero; too large, and the coder does not end. So the last layer of each
transform is scaled, by powers of two: what it is measured on may differ by rounding between machines, a power of two
does not.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from rdpbench.codecs import legacy
from rdpbench.codecs.container import pack, unpack
from rdpbench.codecs.contract import Bitstream, Side, decoding, encoding
from rdpbench.codecs.learned.entropy import Coder, Reader, Tables, Writer, set_tables
from rdpbench.errors import BitstreamError, UnsupportedImage
from rdpbench.image import Image, check_image, to_uint8
from rdpbench.lazy import Tensor, functional, nn, torch
from rdpbench.networks.precision import one_thread, reproducible


@dataclass(frozen=True)
class Frame:
    """How a system pads: to sides that are multiples of ``multiple``, with what, and where.

    >>> Frame(64).padded(500, 768)
    (512, 768)
    >>> Frame(64).margins(500, 768)
    (0, 0, 6, 6)
    """

    multiple: int
    fill: Literal["zero", "replicate", "reflect"] = "zero"
    place: Literal["centre", "corner"] = "centre"
    """``centre`` pads all around, the odd pixel right and below; ``corner`` pads right and below only."""

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Sides of the padded image."""
        return -(-height // self.multiple) * self.multiple, -(-width // self.multiple) * self.multiple

    def margins(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Pixels added at the left, right, top and bottom."""
        rows, columns = (new - old for new, old in zip(self.padded(height, width), (height, width), strict=True))
        left, top = (columns // 2, rows // 2) if self.place == "centre" else (0, 0)
        return left, columns - left, top, rows - top

    def pad(self, planes: Tensor) -> Tensor:
        """``(B, 3, H, W)`` padded; reflection needs an image larger than its margins."""
        height, width = planes.shape[-2:]
        margins = self.margins(height, width)
        if self.fill == "reflect" and (max(margins[:2]) >= width or max(margins[2:]) >= height):
            raise UnsupportedImage(
                f"{width} x {height} pixels are too few to be padded to a multiple of {self.multiple} by reflection"
            )
        return functional.pad(planes, margins, mode="constant" if self.fill == "zero" else self.fill)

    def crop(self, planes: Tensor, height: int, width: int) -> Tensor:
        """The image inside ``(B, 3, H', W')``."""
        left, _, top, _ = self.margins(height, width)
        return planes[..., top : top + height, left : left + width]


def size_of(image: Image) -> tuple[int, int]:
    """Height and width."""
    height, width, _ = check_image(image).shape
    return height, width


def to_planes(images: Sequence[Image], device: str, dtype: torch.dtype) -> Tensor:
    """Images of one size as ``(B, 3, H, W)`` of [0, 1]."""
    sizes = {size_of(image) for image in images}
    if len(sizes) != 1:
        raise UnsupportedImage(f"a batch holds images of one size, found {sorted(sizes)}")
    stack = torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))
    return stack.to(device).to(dtype) / 255


def to_images(planes: Tensor) -> list[Image]:
    """``(B, 3, H, W)`` as images, by the one rounding rule; infinite values only come by a damaged bitstream."""
    values = planes.float().cpu().numpy()
    if not np.isfinite(values).all():
        raise BitstreamError("the reconstruction is not finite: the bitstream is damaged, or was made by other weights")
    return [np.ascontiguousarray(to_uint8(pixels).transpose(1, 2, 0)) for pixels in values]


def check_pixels(height: int, width: int, most: int, error: type[Exception]) -> None:
    """Raise ``error`` unless a size stays within the codec's ``max_pixels``: a stated size must not fill the memory."""
    if height * width > most:
        raise error(f"{width} x {height} pixels are more than max_pixels={most}; raise it in codec.options.max_pixels")


class System(ABC):
    """A network with its tables, ready to code; codec objects share it, so nothing in it may change.

    What is here is a hyperprior: z from y, and the distributions of y from z. Sides are those of the padded image.
    """

    frame: Frame = Frame(64)
    synthesis: str = "g_s"
    """Name of the module that makes pixels: with ``portable`` all but that go to double precision."""

    def __init__(
        self, net: Any, z: Tables, y: Tables, channels: int, *, device: str = "cpu", portable: bool = False
    ) -> None:
        """Take the module over and move it to the device; y has so many channels, at a sixteenth of the sides."""
        self.device, self.portable = device, portable
        self.z, self.y, self.channels = z, y, channels
        self.net = net.eval().requires_grad_(False).to(device)
        if portable:
            net.double()
            getattr(net, self.synthesis).float()

    def sections(self, height: int, width: int) -> dict[str, int]:
        """The strings of the format, in order, with their numbers of symbols."""
        _, rows, columns = self.shape_of_z(height, width)
        return {"z": len(self.z.rows) * rows * columns, "y": self.channels * 16 * rows * columns}

    def shape_of_z(self, height: int, width: int) -> tuple[int, int, int]:
        """Channels and sides of z, at a sixty-fourth of the image's."""
        return len(self.z.rows), -(-height // 64), -(-width // 64)

    def write(self, height: int, width: int, latents: Mapping[str, Tensor]) -> Writer:
        """What the encoder sends of the latents of one image."""
        writer = Writer(self.sections(height, width), portable=self.portable, device=self.device)
        with one_thread():
            self.code(writer, height, width, latents)
        return writer

    def read(self, height: int, width: int, strings: Mapping[str, bytes]) -> Tensor:
        """y as it was quantised, of the strings of one image."""
        reader = Reader(self.sections(height, width), strings, portable=self.portable, device=self.device)
        with one_thread():
            y = self.code(reader, height, width, {})
        reader.finish()
        return y

    def code(self, coder: Coder, height: int, width: int, latents: Mapping[str, Tensor]) -> Tensor:
        """Code the latents of one image, or at the decoder (no latents) read them; returns y as it was quantised."""
        z = coder.factorized("z", self.z, self.shape_of_z(height, width), latents.get("z"))
        return self.code_y(coder, z, latents.get("y"))

    def code_y(self, coder: Coder, z: Tensor, y: Tensor | None) -> Tensor:
        """The part of `code` that follows z."""
        return coder.gaussian("y", self.y, *self.parameters(z), y)

    def parameters(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scales and means of y."""
        raise NotImplementedError

    @abstractmethod
    def analyse(self, planes: Tensor, sides: Sequence[Side]) -> dict[str, Tensor]:
        """Latents ``(B, ...)`` of padded images: all that the encoder alone computes."""

    def synthesise(self, latents: Tensor) -> Tensor:
        """Padded images ``(B, 3, H, W)`` of quantised latents."""
        return getattr(self.net, self.synthesis)(latents.float())


Printed = Callable[[Mapping[str, bytes], int, int], Mapping[str, float]]
"""Further legacy rates, in bits, from the strings by section and the image's height and width."""


def encode_images(
    name: str,
    system: System,
    images: Sequence[Image],
    sides: Sequence[Side],
    max_pixels: int,
    printed: Printed = lambda *_: {},
) -> list[Bitstream]:
    """A bitstream for each of several images of one size."""
    for image in images:
        check_pixels(*size_of(image), max_pixels, UnsupportedImage)
    height, width = size_of(images[0])
    padded = system.frame.padded(height, width)
    bitstreams = []
    with reproducible(), encoding(name):
        planes = to_planes(images, system.device, torch.float64 if system.portable else torch.float32)
        latents = system.analyse(system.frame.pad(planes), sides)
        for number in range(len(images)):
            writer = system.write(*padded, {key: value[number : number + 1] for key, value in latents.items()})
            strings = writer.finish()
            own = {key: value for key, value in strings.items() if key != "guard"}
            bits = {**legacy.rates(own, (height, width), padded), **printed(own, height, width)}
            if writer.estimated is not None:
                bits["estimated"] = round(writer.estimated, 3)
            bitstreams.append(pack(height, width, strings, legacy=json.dumps(bits)))
    return bitstreams


def decode_images(name: str, system: System, datas: Sequence[bytes], max_pixels: int) -> list[Image]:
    """The images of several bitstreams, of one size."""
    with reproducible(), decoding(name):
        quantised, sizes = [], set()
        for data in datas:
            height, width, latents = _read_latents(system, data, max_pixels)
            quantised.append(latents)
            sizes.add((height, width))
        if len(sizes) != 1:
            raise BitstreamError(f"a batch holds images of one size, found {sorted(sizes)}")
        planes = system.synthesise(torch.cat(quantised))
        return to_images(system.frame.crop(planes, height, width))


def _read_latents(system: System, data: bytes, max_pixels: int) -> tuple[int, int, Tensor]:
    names = [*(["guard"] if system.portable else []), *system.sections(system.frame.multiple, system.frame.multiple)]
    height, width, sections = unpack(data, len(names))
    check_pixels(height, width, max_pixels, BitstreamError)
    padded = system.frame.padded(height, width)
    return height, width, system.read(*padded, dict(zip(names, sections, strict=True)))


Network = TypeVar("Network")
SEED = 20250701


def seeded(build: Callable[[], Network], seed: int = SEED) -> Network:
    """What ``build`` makes from a fixed seed; the generator of the process stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def untrained(build: Callable[[], Network]) -> Any:
    """A `seeded` network with the tables of its entropy models."""
    network: Any = seeded(build)
    set_tables(network, {})
    return network.eval()


def picture(side: int = 128, seed: int = SEED) -> Tensor:
    """A smooth coloured pattern ``(1, 3, side, side)`` of [0, 1], to measure random transforms on."""
    coarse = seeded(lambda: torch.rand(1, 3, 9, 9), seed)
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=True)


def last_layer(transform: nn.Module, leave_out: tuple[type, ...] = ()) -> Any:
    """The last convolution of a transform, not looking into children of the given classes."""
    children = [child for child in transform.children() if not isinstance(child, leave_out)]
    layers = [layer for child in children for layer in child.modules()]
    return [layer for layer in layers if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))][-1]


def rescaled(
    transform: Any,
    given: Tensor,
    target: float,
    shift: float = 0,
    channels: slice = slice(None),
    leave_out: tuple[type, ...] = (),
) -> Tensor:
    """`rescale` a transform's `last_layer` by what it makes of something; returns what it then makes of it."""
    with torch.no_grad():
        rescale(last_layer(transform, leave_out), lambda: transform(given), target, shift, channels)
        output: Tensor = transform(given)
    return output


def rescale(
    layer: Any, outputs: Callable[[], Tensor], target: float, shift: float = 0, channels: slice = slice(None)
) -> None:
    """Multiply a layer's weight and bias by the power of two that brings the outputs' deviation nearest to the target.

    The outputs need not be the layer's own; what follows it should be nearly linear. Then ``shift`` is added to the
    biases of some channels.
    """
    with torch.no_grad():
        deviation = float(outputs().std())
        if not 0 < deviation < math.inf:
            raise ValueError(f"a random transform has outputs of deviation {deviation}")
        gain = 2.0 ** round(math.log2(target / deviation))
        for parameter in layer.parameters():
            parameter.mul_(gain)
        if shift:
            layer.bias[channels] += shift
