"""What `mini` is trained on: crops of a few photographs, and of pictures that are drawn by chance.

Three photographs are all that is at hand under CC0, so most of what the network sees is synthetic: dead leaves, shapes
that cover each other with sizes by a power law, as objects in photographs do (Lee, Mumford and Huang 2001). Each is
filled with a colour taken from the photographs, shading, and a texture: noise of a power-law spectrum, a grating, or
a piece of a photograph. No third party has a right in them. Everything follows from seeds.
"""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as pil
from PIL import ImageDraw, ImageFilter

Picture = NDArray[np.uint8]
SIDE = 512
"""Of a synthetic picture; drawn twice as large."""


def photographs(folder: Path) -> list[Picture]:
    """The pictures of a folder, ``(H, W, 3)``, by name."""
    return [np.asarray(pil.open(file).convert("RGB")) for file in sorted(folder.glob("*.png"))]


def noise(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """A texture ``(side, side)`` of deviation 1: noise of a power-law spectrum, stretched in some direction."""
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    angle, stretch = rng.uniform(0, math.pi), rng.choice([1.0, 1.0, rng.uniform(1, 6)])
    along = rows * math.cos(angle) + columns * math.sin(angle)
    across = columns * math.cos(angle) - rows * math.sin(angle)
    frequency = np.sqrt((along * stretch) ** 2 + across**2) + 1 / side
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) * frequency ** -rng.uniform(0.4, 1.8)
    spectrum[0, 0] = 0
    out = np.fft.irfft2(spectrum, (side, side))
    return np.asarray(out / out.std(), np.float32)


def grating(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Stripes ``(side, side)``, soft or hard."""
    angle, period = rng.uniform(0, math.pi), math.exp(rng.uniform(math.log(5), math.log(60)))
    rows, columns = np.mgrid[:side, :side]
    wave = np.sin(2 * math.pi * (rows * math.cos(angle) + columns * math.sin(angle)) / period)
    return np.asarray(np.tanh(wave * rng.choice([0.5, 2, 8])), np.float32)


def dead_leaves(seed: int, photos: list[Picture]) -> Picture:
    """One synthetic picture ``(SIDE, SIDE, 3)``."""
    rng = np.random.default_rng([20211, seed])
    side = 2 * SIDE
    textures = [noise(rng, SIDE) for _ in range(5)] + [grating(rng, SIDE) for _ in range(2)]
    photo = photos[int(rng.integers(len(photos)))]
    smallest, largest = math.exp(rng.uniform(math.log(8), math.log(120))), rng.uniform(200, 600)
    canvas = np.zeros((side, side, 3), np.float32) + _colour(rng, photo)
    canvas += rng.uniform(3, 40) * np.tile(noise(rng, SIDE), (2, 2))[..., None]
    for _ in range(int(math.exp(rng.uniform(math.log(20), math.log(600))))):
        # Density r^-3 between the two.
        radius = (smallest**-2 - rng.uniform() * (smallest**-2 - largest**-2)) ** -0.5
        _leaf(rng, canvas, radius, photo, textures)
    small = pil.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    if rng.uniform() < 0.4:
        small = _lettered(rng, small)
    if rng.uniform() < 0.4:  # out of focus
        small = small.filter(ImageFilter.GaussianBlur(float(rng.exponential(3))))
    return np.asarray(small.resize((SIDE, SIDE), pil.Resampling.BOX))


def _colour(rng: np.random.Generator, photo: Picture) -> NDArray[np.float32]:
    """One of the photograph's, nearer to its mean, lighter or darker."""
    row, column = rng.integers(photo.shape[0]), rng.integers(photo.shape[1])
    mean, near = photo.mean((0, 1)), rng.uniform(0.3, 1)
    return np.asarray((mean + near * (photo[row, column] - mean)) * rng.uniform(0.5, 1.2), np.float32)


def _leaf(
    rng: np.random.Generator, canvas: NDArray[np.float32], radius: float, photo: Picture, textures: list[Any]
) -> None:
    """Draw one shape over what is there."""
    side = len(canvas)
    middle = rng.uniform(0, side, 2)
    low = np.maximum(np.floor(middle - radius), 0).astype(int)
    high = np.minimum(np.ceil(middle + radius), side).astype(int)
    height, width = high - low
    if min(height, width) < 1:
        return
    mask = pil.new("1", (int(width), int(height)))
    ImageDraw.Draw(mask).polygon([tuple(point) for point in _outline(rng, radius) + (middle - low)[::-1]], fill=1)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    slope = rng.normal(0, 30, 2) / max(radius, 1)
    fill = _colour(rng, photo) + (slope[0] * rows + slope[1] * columns)[..., None] * rng.uniform(0.7, 1.0, 3)
    kind = rng.uniform()
    if kind < 0.55:
        texture = textures[int(rng.integers(len(textures)))]
        fill += rng.exponential(14) * texture[np.ix_(np.arange(height) % SIDE, np.arange(width) % SIDE)][..., None]
    elif kind < 0.8:
        at = rng.integers(0, np.array(photo.shape[:2]))
        piece = photo[np.ix_((at[0] + np.arange(height)) % len(photo), (at[1] + np.arange(width)) % photo.shape[1])]
        fill += rng.uniform(0.3, 1) * (piece - piece.mean((0, 1)))
    inside = np.asarray(mask)
    canvas[low[0] : high[0], low[1] : high[1]][inside] = fill[inside]


def _outline(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """Points ``(N, 2)`` around 0: an ellipse, a polygon, a bar or a wavy blob."""
    kind, turn = rng.integers(4), rng.uniform(0, 2 * math.pi)
    count = int(rng.integers(3, 7)) if kind == 1 else 48
    angles = np.linspace(0, 2 * math.pi, count, endpoint=False)
    points = np.stack([np.cos(angles), np.sin(angles)], 1)
    if kind == 1:
        points *= rng.uniform(0.5, 1, (count, 1))
    elif kind == 3:
        points *= 0.75 + 0.25 * np.sin(angles * rng.integers(2, 7) + turn)[:, None]
    points[:, 1] *= rng.uniform(0.05, 0.3) if kind == 2 else rng.uniform(0.4, 1)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return np.asarray(points @ rotation * radius)


def _lettered(rng: np.random.Generator, picture: Any) -> Any:
    """Some writing, for thin strokes of one colour."""
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(1, 12))):
        word = "".join(chr(int(code)) for code in rng.integers(33, 126, int(rng.integers(2, 14))))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        where = tuple(float(value) for value in rng.uniform(0, 0.9 * picture.width, 2))
        draw.text(where, word, fill=colour, font_size=float(rng.uniform(16, 120)))
    return picture


def synthetic(count: int, photos: list[Picture], cache: Path, processes: int = 2) -> list[Picture]:
    """``count`` pictures, from the cache if it holds as many."""
    if not cache.exists() or len(np.load(cache, mmap_mode="r")) != count:
        with ProcessPoolExecutor(processes) as pool:
            drawn = list(pool.map(partial(dead_leaves, photos=photos), range(count)))
        np.save(cache, np.stack(drawn))
    return list(np.load(cache))


def crop(rng: np.random.Generator, picture: Picture, side: int) -> Picture:
    """A random piece ``(side, side, 3)``: scaled, turned, mirrored, with exchanged and adjusted colours."""
    height, width = picture.shape[:2]
    scale = rng.uniform(max(0.4, side / min(height, width)), 1.15)
    taken = min(round(side / scale), height, width)
    row, column = rng.integers(0, height - taken + 1), rng.integers(0, width - taken + 1)
    piece = pil.fromarray(picture[row : row + taken, column : column + taken])
    out = np.asarray(piece.resize((side, side), pil.Resampling.LANCZOS))
    out = np.rot90(out, int(rng.integers(4)))
    if rng.uniform() < 0.5:
        out = out[:, ::-1]
    if rng.uniform() < 0.4:
        out = out[..., rng.permutation(3)]
    if rng.uniform() < 0.6:
        values = np.asarray(out, np.float32)
        grey = values.mean(2, keepdims=True)
        values = grey + (values - grey) * rng.uniform(0.3, 1.3)
        values = 255 * (np.clip(values, 0, 255) / 255) ** rng.uniform(0.7, 1.4)
        out = np.clip(np.round(values * rng.uniform(0.75, 1.1)), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(out)


class Batches:
    """Batches by number: the same number always gives the same crops, so that training can be taken up anywhere."""

    def __init__(self, photos: list[Picture], drawn: list[Picture], share: float, side: int, size: int) -> None:
        """Take pictures, the share of crops from photographs, and the crops' side and number."""
        self.photos, self.drawn, self.share, self.side, self.size = photos, drawn, share, side, size

    def __call__(self, step: int, seed: int) -> NDArray[np.uint8]:
        """``(size, 3, side, side)``."""
        rng = np.random.default_rng([seed, step])
        out = []
        for _ in range(self.size):
            pictures = self.photos if rng.uniform() < self.share else self.drawn
            out.append(crop(rng, pictures[int(rng.integers(len(pictures)))], self.side))
        return np.ascontiguousarray(np.stack(out).transpose(0, 3, 1, 2))
