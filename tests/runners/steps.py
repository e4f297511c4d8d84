"""The codec and the metric of the campaigns, which misbehave where the environment says so, and what runs must share.

``FAULT`` has what happens, in which method, to which image (the sum of its pixels, or that and a step), and a folder
that it makes first if it is to happen once, else ``-``. What is coded does not depend on it.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rdpbench.codecs.contract import Bitstream, Rate

VOLATILE = {"session", "time", "encode_s", "decode_s", "score_s", "peak_memory_mb", "verified"}
"""What may differ between two runs of the same: clocks, memory, and whether verification has seen a row."""


def values(contents: Any) -> dict[str, Any]:
    """All that must be equal in two runs."""
    rows = {
        key: {name: value for name, value in vars(row).items() if name not in VOLATILE}
        for key, row in contents.rows.items()
    }
    return {"rows": rows, "scores": {key: {**vars(score), "session": ""} for key, score in contents.scores.items()}}


def misbehave(where: str, image: Any, step: int = 0) -> None:  # noqa: PLR0912 - a branch each
    what, place, number, once = os.environ.get("FAULT", "none - 0 -").split()
    if place != where or number not in (f"{image.sum()}", f"{image.sum()}-{step}"):
        return
    if once != "-":
        try:
            Path(once).mkdir()
        except FileExistsError:
            return
    if what == "forks":
        os.fork()
    elif what == "forks-and-dies":
        if not os.fork():
            time.sleep(1000)
        os._exit(3)
    elif what == "hangs":
        time.sleep(1000)
    elif what == "ignores-and-hangs":
        for name in (signal.SIGTERM, signal.SIGALRM, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        while True:
            time.sleep(1)
    elif what == "leaves-a-child":
        subprocess.Popen(["sleep", f"1000.{os.environ['MARK']}"])
    elif what == "exits":
        os._exit(0)
    elif what == "sys-exits":
        sys.exit(0)
    elif what.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, what))
    elif what == "surrogate":
        raise RuntimeError("half of a pair \udcff\ud800")
    elif what == "endless":
        raise RuntimeError("x" * 3_000_000)
    elif what == "no-space":
        raise OSError(errno.ENOSPC, "No space left on device")


@dataclass(frozen=True)
class Steps:
    step: int = 8
    rate: ClassVar[Rate] = Rate("step", 1, 64, rises=False, points=(4, 8, 16))

    def encode(self, image: Any, side: Any) -> Bitstream:
        time.sleep(float(os.environ.get("PAUSE", "0")))
        misbehave("encode", image, self.step)
        return Bitstream.whole(bytes([*image.shape[:2], self.step]) + zlib.compress((image // self.step).tobytes()))

    def decode(self, data: bytes) -> Any:
        levels = np.frombuffer(zlib.decompress(data[3:]), np.uint8).reshape(data[0], data[1], 3).astype(int)
        return np.clip(levels * data[2] + data[2] // 2, 0, 255).astype(np.uint8)


class Error:
    higher_is_better = False
    unit = ""
    perceptual = False

    def prepare(self, original: Any) -> Any:
        misbehave("metric", original)
        return original.astype(np.float32)

    def score(self, prepared: Any, reconstruction: Any) -> float:
        return float(np.abs(prepared - reconstruction).mean())

    def reduce(self, values: list[float]) -> float:
        return sum(values) / len(values)
