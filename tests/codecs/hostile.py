"""Decodes mutations of a learned codec's bitstream with bounded memory; run as a program by the tests.

``python hostile.py CODEC OPTIONS COUNT MEGABYTES [CAPTION]``: the options are JSON, the caption goes to the encoder.
Prints one line: how many mutations gave an image, how many an error, the longest seconds.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np

from rdpbench import registry
from rdpbench.codecs.contract import Side
from rdpbench.errors import BitstreamError
from rdpbench.runners.conformance import damaged


def main() -> None:
    name, options, count, megabytes, *caption = sys.argv[1:]
    codec = registry.load("codec", name)(**json.loads(options))
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
        changed = damaged(data, number)
        started = time.perf_counter()
        try:
            codec.decode(changed)
            outcomes["images"] += 1
        except BitstreamError as error:
            if "memory" in str(error):
                raise
            outcomes["errors"] += 1
        longest = max(longest, time.perf_counter() - started)
    print(json.dumps({**outcomes, "longest_s": round(longest, 3)}))


if __name__ == "__main__":
    main()
