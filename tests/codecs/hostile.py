"""Decodes mutations of a learned codec's bitstream with bounded memory; run as a program by the tests.

``python hostile.py CLASS OPTIONS COUNT MEGABYTES [CAPTION]``: the options are JSON, the caption goes to the encoder.
Prints one line: how many mutations gave an image, how many an error, the longest seconds.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time

import numpy as np

from rdpbench.codecs.contract import Side
from rdpbench.errors import BitstreamError


def mutated(data: bytes, number: int, rng: np.random.Generator) -> bytes:
    """Flipped bits, cuts, random tails, other sizes and lengths, and plain noise, in turn."""
    out = bytearray(data)
    kind = number % 6
    if kind in (0, 1):
        for _ in range(int(rng.integers(1, 6))):
            out[int(rng.integers(len(out)))] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        out = out[: int(rng.integers(len(out)))]
    elif kind == 3:
        at = int(rng.integers(len(out)))
        out[at:] = rng.bytes(len(out) - at)
    elif kind == 4:
        out[int(rng.integers(9))] = int(rng.integers(256))
    else:
        at = int(rng.integers(8, len(out)))
        out[at:] = bytes([int(rng.choice([0, 255]))]) * (len(out) - at)
    return bytes(out)


def main() -> None:
    where, options, count, megabytes, *caption = sys.argv[1:]
    module, _, name = where.partition(":")
    codec = getattr(importlib.import_module(module), name)(**json.loads(options))
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (8, 13, 3), dtype=np.uint8)
    image = np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:61, :99])
    data = codec.encode(image, Side(*caption)).data
    assert codec.decode(data).shape == image.shape
    # What is here already, and so much more.
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    limit = used + (int(megabytes) << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    outcomes = {"images": 0, "errors": 0}
    longest = 0.0
    for number in range(int(count)):
        damaged = mutated(data, number, rng)
        started = time.perf_counter()
        try:
            codec.decode(damaged)
            outcomes["images"] += 1
        except BitstreamError as error:
            if "memory" in str(error):
                raise
            outcomes["errors"] += 1
        longest = max(longest, time.perf_counter() - started)
    print(json.dumps({**outcomes, "longest_s": round(longest, 3)}))


if __name__ == "__main__":
    main()
