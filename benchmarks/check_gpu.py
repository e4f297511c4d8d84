"""Does everything neural run on this GPU at full width, how fast, and how far is it from the CPU?

    python benchmarks/check_gpu.py [--device cuda] [--only NAME ...] [--size 512] [--most 64] [--seconds 30]
    python benchmarks/check_gpu.py --device cpu --tiny --only mbt2018-mean lpips/alex     # the same path, here

Every codec with weights and every network of a metric, with seeded random weights, each in a process of its own: a
crash is one line of the table. Random weights cost what trained ones cost, but for the range coder, which has more to
do. Without a GPU it says so and exits with 2; with 1 if anything failed or is off.

*Codecs*: at their highest listed rate. The batch doubles until memory is out, ``--most`` is reached, or coding a batch
takes longer than ``--seconds``; times are per image, at batch 1 and at the largest that fitted. Learned codecs are
compared with ``portable=true`` on ``--compare`` pixels: the device's bitstream, decoded on the CPU, must be within 1 of
255. Generative ones have no portable mode: the same bitstream is decoded on both, in two denoising steps, and the
difference is told. Prompt searches and the like run for ``--steps`` steps only, where thousands are usual. PIC's batch
is its candidates: encoding is in seconds for each of them, the search's share in it.

*Commands*: a run on all devices of ``--device``, and `rdpbench verify --device` between these and the CPU. Rows must
name each device and its model, with TF32 and reduced sums off; a portable codec must decode everywhere to within 1; and
what a codec took of a device must be free when the next one has loaded.

*Metrics*: one entry for each network; presets and variants of a metric share it. The difference is that of its values,
relative to the largest. Captioning models (BLIP, BLIP-2) are not here: they are made from their files only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from random_metrics import BUILDERS, SIDE

from rdpbench import registry
from rdpbench.codecs.contract import make_ready, rate_of
from rdpbench.codecs.learned.codec import LearnedCodec
from rdpbench.datasets.folder import Samples
from rdpbench.image import Image, read_image
from rdpbench.networks import held
from rdpbench.networks.precision import devices_of, see_only
from rdpbench.results.store.store import Store
from rdpbench.results.tables import CROSSINGS
from rdpbench.runners.worker import synchronise

METRICS = (
    *(
        "lpips/alex",
        "lpips/vgg",
        "lpips/squeeze",
        "dists",
        "pieapp/sparse",
        "fid/clean",
        "clip-i/b32",
        "clip-score/l14",
    ),
    *("dclip/h14", "cmmd", "miou/eomt-small", "miou/eomt-large", "miou/maskformer-stuff"),
)
"""One for each network."""
FAR = 1e-3
"""Relative: values of a metric further from the CPU's are an error, not rounding."""


@dataclass
class Line:
    """A line of the table."""

    name: str
    batch: str = "1"
    encode: str = "–"
    decode: str = "–"
    memory: str = "–"
    differs: str = "–"
    bad: bool = False

    def cells(self) -> str:
        """As Markdown."""
        return f"| {' | '.join([self.name, self.batch, self.encode, self.decode, self.memory, self.differs])} |"


def neural_codecs() -> list[str]:
    """Codecs that compute on a device, with weights that can be random."""
    found = []
    for name in registry.names("codec"):
        cls = registry.load("codec", name)
        if getattr(cls, "uses_device", False) and "weights" in getattr(cls, "__dataclass_fields__", {}):
            found.append(name)
    return found


def pictures(count: int, side: int) -> list[Image]:
    """Squares cut from an embedded photograph."""
    [source] = [read_image(one.path).pixels for one in Samples().samples() if one.id == "astronaut"]
    margins = [(0, max(0, side - length)) for length in source.shape[:2]]
    source = np.pad(source, (*margins, (0, 0)), mode="symmetric")
    lefts = [(29 * number) % (source.shape[1] - side + 1) for number in range(count)]
    return [np.ascontiguousarray(source[:side, left : left + side]) for left in lefts]


def peak_gb(device: str) -> str:
    """The highest memory: of the device since it was last asked, or of this process since its start."""
    if device == "cpu":
        return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f}"
    import torch

    found = torch.cuda.max_memory_allocated(device) / 1e9
    torch.cuda.reset_peak_memory_stats(device)
    return f"{found:.2f}"


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Of one call, with what it returns."""
    synchronise()
    start = time.perf_counter()
    found = work()
    synchronise()
    return time.perf_counter() - start, found


@dataclass
class Grown:
    """What was measured at batch 1 and at the largest that fitted."""

    batch: int
    told: str
    """Why it grew no further."""
    alone: tuple[float, ...]
    times: tuple[float, ...]
    memory: str

    def cell(self, at: int) -> str:
        """The seconds of one kind."""
        return f"{self.alone[at]:.3f}" + (f", {self.times[at]:.3f}" if self.batch > 1 else "")


def grown(run: Callable[[int], tuple[float, ...]], options: argparse.Namespace, *, grows: bool) -> Grown:
    """Double the batch as long as it fits; ``run`` takes its size, and gives seconds per image."""
    peak_gb(options.device)
    alone = times = run(1)
    memory, batch = [peak_gb(options.device)], 1
    while grows:
        if 2 * batch > options.most:
            return Grown(batch, f"{batch} (--most)", alone, times, ", ".join(memory))
        if sum(times) * batch > options.seconds:
            return Grown(batch, f"{batch} (--seconds)", alone, times, ", ".join(memory))
        try:
            times = run(2 * batch)
        except Exception as error:
            if type(error).__name__ not in ("OutOfMemoryError", "MemoryError"):
                raise
            return Grown(batch, f"{batch} (memory)", alone, times, ", ".join(memory))
        batch *= 2
        memory = [memory[0], peak_gb(options.device)]
    return Grown(1, "1", alone, alone, memory[0])


# Codecs


def made(name: str, options: argparse.Namespace, **more: Any) -> Any:
    """A codec at its highest listed rate with random weights."""
    cls: Any = registry.load("codec", name)
    rate = rate_of(cls)
    settings: dict[str, Any] = {"weights": "random" if options.tiny else "random-full", "device": options.device}
    settings |= {rate.field: rate.points[-1]} if rate and rate.points else {}
    wanted = {"search_steps": options.steps, "candidates": 1, **more}
    known = {field.name for field in fields(cls)}
    return cls(**settings, **{key: value for key, value in wanted.items() if key in known})


def check_codec(name: str, options: argparse.Namespace) -> Line:
    """Time, batch, memory and difference of a codec."""
    codec = made(name, options)
    make_ready(codec)
    images = pictures(max(2, min(options.most, 8)), options.size)
    codec.decode(codec.encode(images[0], SIDE).data)  # warm
    if hasattr(codec, "candidate_batch"):
        found = grown(lambda count: candidates(codec, images[0], count), options, grows=True)
    else:
        batches = bool(getattr(codec, "batches", False))
        found = grown(lambda count: round_trip(codec, images, count), options, grows=batches)
    line = Line(name, found.told, found.cell(0), found.cell(1), found.memory)
    line.differs, line.bad = differs_codec(name, options)
    return line


def round_trip(codec: Any, images: Sequence[Image], count: int) -> tuple[float, ...]:
    """Seconds per image to encode and decode so many together."""
    chosen = [images[number % len(images)] for number in range(count)]
    if count == 1:
        encode_s, stream = seconds(lambda: codec.encode(chosen[0], SIDE))
        decode_s, _ = seconds(lambda: codec.decode(stream.data))
    else:
        encode_s, streams = seconds(lambda: codec.encode_batch(chosen, [SIDE] * count))
        datas = [one.data for one in streams]
        together = getattr(codec, "decode_batch", None)
        decode_s, _ = seconds(lambda: together(datas) if together else [codec.decode(data) for data in datas])
    return encode_s / count, decode_s / count


def candidates(codec: Any, image: Image, count: int) -> tuple[float, ...]:
    """Seconds for each of so many candidates of one image that are painted together, and to decode the chosen one."""
    number = max(2, count)  # a single candidate is not painted: there is nothing to choose
    codec = replace(codec, candidates=number, candidate_batch=count)
    encode_s, stream = seconds(lambda: codec.encode(image, SIDE))
    decode_s, _ = seconds(lambda: codec.decode(stream.data))
    return encode_s / number, decode_s


def differs_codec(name: str, options: argparse.Namespace) -> tuple[str, bool]:
    """How far images decoded here are from those of the CPU at one thread, from the same bytes; and is that too far?"""
    import torch

    [image] = pictures(1, options.compare)
    portable = issubclass(registry.load("codec", name), LearnedCodec)
    codec = made(name, options, portable=True, steps=2)
    data = codec.encode(image, SIDE).data
    here = codec.decode(data).astype(int)
    torch.set_num_threads(1 if options.tiny or portable else torch.get_num_threads())
    other = replace(codec, device="cpu")
    there = other.decode(data)
    far = np.abs(here - there)
    told = f"≤ {far.max()} of 255, {100 * np.count_nonzero(far) / far.size:.2g} % of values"
    if portable:
        same = other.encode(image, SIDE).data == data
        told += ", same bytes" if same else ", other bytes"
    return told, bool(portable and far.max() > 1)


# Metrics


def check_metric(name: str, options: argparse.Namespace) -> Line:
    """Time, batch, memory and difference of a metric's network."""
    images = pictures(max(2, min(options.most, 8)), options.size)
    with tempfile.TemporaryDirectory() as folder:
        build, module = BUILDERS[name.partition("/")[0]](name, options.tiny, Path(folder))
        here = build(options.device)
        here(images[:1])  # warm

        def run(count: int) -> tuple[float, ...]:
            if module:
                vars(sys.modules[module])["BATCH"] = count
            return (seconds(lambda: here([images[number % len(images)] for number in range(count)]))[0] / count,)

        found = grown(run, options, grows=bool(module))
        line = Line(name, found.told, found.cell(0), "–", found.memory)
        some = pictures(2, options.compare)
        ours, theirs = (np.concatenate([np.ravel(one) for one in use(some)]) for use in (here, build("cpu")))
    far = float(np.abs(ours.astype(float) - theirs).max() / max(np.abs(theirs.astype(float)).max(), 1e-30))
    line.differs, line.bad = f"{far:.1e}", not far <= FAR
    return line


# Commands

COMMANDS = "commands"


def check_commands(options: argparse.Namespace) -> Line:
    """Do whole commands use the devices, and say what they were?"""
    devices = devices_of(options.device.split(","))
    chosen = ["codec=mbt2018-mean", "codec.options.portable=true", "weights=random", "data=samples", "metrics=psnr"]
    with tempfile.TemporaryDirectory() as folder:
        for words in (
            ["run", *chosen, f"device={','.join(devices)}", "limit=4", "figures=false", f"root={folder}"],
            ["verify", "samples", "--root", folder, "--device", ",".join(dict.fromkeys(["cpu", *devices]))],
        ):
            line = [sys.executable, "-W", "ignore", "-m", "rdpbench", *words]
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stdout + done.stderr).strip().splitlines()[-1]
                return Line(COMMANDS, differs=f"{words[0]}: exit code {done.returncode}: {last:.200}", bad=True)
        rows = Store(Path(folder, "samples")).read().rows.values()
        cells = json.loads(Path(folder, "samples", CROSSINGS).read_text())["cells"]
    stated = {row.device: json.loads(row.hardware) for row in rows}
    exact = all((one["tf32"], one["reduced sums"]) == ("off", "off") for name, one in stated.items() if name != "cpu")
    told = [f"{name} is {one['name']}, driver {one.get('driver') or '–'}" for name, one in sorted(stated.items())]
    far = max(cell["largest"] for cell in cells)
    freed, memory = gives_back(devices[0], options)
    told += [f"decoded on others ≤ {far} of 255", f"reserved after each of three codecs: {memory} GB"]
    bad = {*stated} != {*devices} or not exact or not freed
    return Line(COMMANDS, differs="; ".join(told), bad=bad)


def gives_back(device: str, options: argparse.Namespace) -> tuple[bool, str]:
    """Is what a codec took of a device free once another has loaded? With what is reserved after each."""
    import torch

    sizes, options = [], argparse.Namespace(**{**vars(options), "device": device})
    for name in ("elic", "mbt2018-mean", "elic"):
        held.begin(name)
        make_ready(made(name, options))
        sizes.append(torch.cuda.memory_reserved(device) / 1e9 if device != "cpu" else 0)
    return sizes[0] == sizes[2] and sizes[1] <= sizes[0], ", ".join(f"{size:.2f}" for size in sizes)


# The table


def elsewhere(name: str, given: Sequence[str]) -> Line:
    """Check one thing in a process of its own."""
    line = [sys.executable, "-W", "ignore", __file__, *given, "--one", name]
    environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    try:
        return Line(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        told = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1].replace("|", "/")
        return Line(name, differs=f"failed: {told[:150]}", bad=True)


def wanted(options: argparse.Namespace) -> Iterator[str]:
    """Names of what is to be checked."""
    known = [*neural_codecs(), *METRICS, COMMANDS]
    for name in options.only or known:
        if name not in known:
            sys.exit(f"check_gpu knows no {name!r}; it knows {', '.join(known)}")
        yield name


def main() -> int:
    """Check everything, print the table; 2 without a GPU, 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--tiny", action="store_true", help="tiny networks where there are any")
    parser.add_argument("--size", type=int, default=512, help="side of the images")
    parser.add_argument("--compare", type=int, default=256, help="side of the images that the CPU computes, too")
    parser.add_argument("--steps", type=int, default=20, help="of searches, which are thousands in earnest")
    parser.add_argument("--most", type=int, default=64, help="largest batch that is tried")
    parser.add_argument("--seconds", type=float, default=30, help="for a batch, beyond which none is larger")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one and options.one != COMMANDS:
        options.device = see_only(options.device.partition(",")[0])

    import torch

    if options.device != "cpu" and not torch.cuda.is_available():
        print(
            f"no GPU: torch {torch.__version__} sees none, so that nothing was checked. --device cpu tries the script"
        )
        return 2
    if options.one:
        check = check_metric if options.one in METRICS else check_codec
        print(json.dumps(vars(check_commands(options) if options.one == COMMANDS else check(options.one, options))))
        return 0
    names = list(wanted(options))
    devices = devices_of(options.device.split(","))
    where = ", ".join("the CPU" if name == "cpu" else torch.cuda.get_device_name(name) for name in devices)
    print(f"{where}, torch {torch.__version__}, images of {options.size} x {options.size}, ", end="")
    what = "random weights at a tiny width" if options.tiny else "random weights"
    print(f"{what}; seconds are per image, at batch 1 and in the largest batch\n")
    print("| what | largest batch | encode or score, s | decode, s | peak GB | differs from the CPU |")
    print("| --- | --- | --- | --- | ---: | --- |", flush=True)
    bad = 0
    for name in names:
        line = elsewhere(name, sys.argv[1:])
        bad += line.bad
        print(line.cells(), flush=True)
    print(f"\n{len(names) - bad} of {len(names)} are as they should be")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
