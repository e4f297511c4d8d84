"""Do BPG and VTM, run through our wrappers, give the rates and PSNR that others published for Kodak?

    export RDPBENCH_BPGENC=... RDPBENCH_BPGDEC=... RDPBENCH_VTM_ENCODER=... RDPBENCH_VTM_DECODER=...
    python benchmarks/check_published.py bpg KODAK_FOLDER --rows bpg.csv
    python benchmarks/check_published.py vtm-8bit KODAK_FOLDER --rows vtm-8bit.csv --qp 47 42 37

Every image is appended to the CSV as it is done: the same command again goes on where it stopped. The table at the
end compares means over the 24 images: bpp of the whole file, PSNR of each image over its 8-bit RGB pixels.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rdpbench.codecs.classical.bpg import BPG
from rdpbench.codecs.classical.vvc import VTM
from rdpbench.codecs.contract import Side, coder_of
from rdpbench.image import Image, read_image

FIELDS = ["codec", "qp", "image", "bytes", "bpp", "psnr", "encode_s", "decode_s", "sha256", "command", "coder"]


@dataclass(frozen=True)
class Check:
    """A codec and the points it is held against: QP to (bpp, PSNR), to be met within the two tolerances."""

    make: type[BPG | VTM]
    options: dict[str, str | int | bool]
    source: str
    points: dict[int, tuple[float, float]]
    bpp_percent: float
    psnr_db: float


# CompressAI's results/image/kodak/bpg_444_x265_ycbcr.json at 869a9f5d4126, to 4 decimals.
BPG_POINTS = {
    47: (0.0678, 26.1951),
    42: (0.1610, 28.6815),
    37: (0.3516, 31.5947),
    32: (0.6847, 34.8575),
    27: (1.1997, 38.2599),
    22: (1.9297, 41.4789),
    17: (3.0579, 44.7031),
    12: (4.7031, 47.6325),
}
# VTM 19.2 on planes of CompressAI's truncating conversion, decoded with rounding; see docs/checks.md.
VTM_POINTS = {47: (0.0480, 26.13), 42: (0.1124, 28.49), 37: (0.2466, 31.19)}
BY_HAND = "VTM 19.2, truncated planes"

CHECKS = {
    "bpg": Check(BPG, {}, "CompressAI", BPG_POINTS, 0, 0),
    "vtm-8bit": Check(VTM, {"input_depth": 8, "middle": "half"}, BY_HAND, VTM_POINTS, 0.5, 0.02),
    "vtm-compressai": Check(
        VTM, {"input_depth": 8, "middle": "half", "truncate": True}, BY_HAND, VTM_POINTS, 0.5, 0.02
    ),
    "vtm": Check(VTM, {"input_depth": 10}, BY_HAND, VTM_POINTS, 0.5, 0.02),
}


def psnr(one: Image, other: Image) -> float:
    """Over all 8-bit RGB samples of one image; squared differences are summed as integers."""
    squares = int(((one.astype(np.int64) - other.astype(np.int64)) ** 2).sum())
    return float(10 * np.log10(255**2 * one.size / squares)) if squares else float("inf")


def measure(name: str, qp: int, path: Path) -> dict[str, str]:
    """Code one image and decode it from its bytes by a fresh object."""
    check, image = CHECKS[name], read_image(path).pixels
    codec, reader = (check.make(qp=qp, **check.options) for _ in range(2))  # type: ignore[arg-type]
    start = time.perf_counter()
    stream = codec.encode(image, Side())
    middle = time.perf_counter()
    decoded = reader.decode(stream.data)
    end = time.perf_counter()
    values = [name, qp, path.stem, len(stream.data), 8 * len(stream.data) / (image.size // 3), psnr(image, decoded)]
    values += [round(middle - start, 3), round(end - middle, 3), hashlib.sha256(stream.data).hexdigest()]
    values += [stream.info["command"], " ".join(f"{key}={value}" for key, value in coder_of(codec).items())]
    return dict(zip(FIELDS, map(str, values), strict=True))


def read_rows(rows: Path) -> list[dict[str, str]]:
    """Rows of an earlier start; none if there was none."""
    if not rows.exists():
        return []
    with rows.open(newline="") as file:
        return list(csv.DictReader(file))


def fill(name: str, qps: list[int], images: list[Path], rows: Path) -> None:
    """Measure what the CSV does not have yet."""
    done = {(row["codec"], int(row["qp"]), row["image"]) for row in read_rows(rows)}
    todo = [(qp, path) for qp in qps for path in images if (name, qp, path.stem) not in done]
    with rows.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not file.tell():
            writer.writeheader()
        for number, (qp, path) in enumerate(todo, 1):
            writer.writerow(measure(name, qp, path))
            file.flush()
            print(f"{number}/{len(todo)} {name} QP {qp} {path.stem}", file=sys.stderr)


def table(name: str, qps: list[int], images: list[Path], rows: Path) -> str:
    """Markdown: our means against the points held against."""
    check, names = CHECKS[name], {path.stem for path in images}
    lines = [
        f"| QP | images | bpp | bpp, {check.source} | PSNR, dB | PSNR, {check.source} | as expected |",
        "|---:|---:|---:|---:|---:|---:|:---|",
    ]
    for qp in qps:
        mine = [r for r in read_rows(rows) if (r["codec"], int(r["qp"])) == (name, qp) and r["image"] in names]
        bpp, quality = (float(np.mean([float(row[field]) for row in mine])) for field in ("bpp", "psnr"))
        digits = 4 if check.psnr_db == 0 else 2
        expected = check.points.get(qp)
        if expected is None:
            lines.append(f"| {qp} | {len(mine)} | {bpp:.4f} | | {quality:.{digits}f} | | not published |")
            continue
        # Half a unit of the last digit that was published is no difference.
        near = abs(bpp - expected[0]) <= 0.00005 + expected[0] * check.bpp_percent / 100
        near &= abs(quality - expected[1]) <= 0.5 * 10**-digits + check.psnr_db
        lines.append(
            f"| {qp} | {len(mine)} | {bpp:.4f} | {expected[0]:.4f} | {quality:.{digits}f} | {expected[1]:.{digits}f} "
            f"| {'yes' if near else 'NO'} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line: measure, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codec", choices=sorted(CHECKS))
    parser.add_argument("kodak", type=Path, help="folder with kodim01.png to kodim24.png")
    parser.add_argument("--rows", type=Path, required=True, help="CSV to append to, one row per image")
    parser.add_argument("--qp", type=int, nargs="+", help="default: every point that the codec is held against")
    given = parser.parse_args()
    images = sorted(given.kodak.glob("kodim*.png"))
    if len(images) != 24:
        parser.error(f"{given.kodak} holds {len(images)} of the 24 Kodak images (kodim01.png ...)")
    qps = given.qp or list(CHECKS[given.codec].points)
    fill(given.codec, qps, images, given.rows)
    print(table(given.codec, qps, images, given.rows))


if __name__ == "__main__":
    main()
