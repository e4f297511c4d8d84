"""Published lists of names: ids as they stand in their sources, one a line, under a header that names the source.

``# name: COCO_val2014_%012d.jpg`` turns numbers into file names; without it a line is a name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def names(listed: str) -> Iterator[str]:
    """File names of a list, in its order.

    >>> next(names("coco-restval"))
    'COCO_val2014_000000000073.jpg'
    """
    pattern = ""
    with (Path(__file__).parent / f"{listed}.txt").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("#"):
                pattern = line.removeprefix("# name: ").strip() if line.startswith("# name: ") else pattern
            elif line.strip():
                yield pattern % int(line) if pattern else line.strip()


def source(listed: str) -> str:
    """The header of a list: where it comes from.

    >>> source("coco-train2017-perco").count("30,000")
    1
    """
    with (Path(__file__).parent / f"{listed}.txt").open(encoding="utf-8") as lines:
        return " ".join(
            line.lstrip("# ").strip() for line in lines if line.startswith("#") and not line.startswith("# name: ")
        )
