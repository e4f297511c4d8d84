"""Trains the weights of the codec `mini`; ``docs/mini.md`` tells what was run.

::

    python training/mini.py train --photos FOLDER --work WORK --steps 20000
    python training/mini.py train --photos FOLDER --work WORK2 --metric ms-ssim --begin WORK/last.pt --steps 2000
    python training/mini.py export --work WORK --to rdpbench/codecs/learned/mini_weights/mse.safetensors

One network is trained for all rates: each crop of a batch has a rate drawn for it, and its loss is weighted so that
rates count alike. Batches follow from the seed and the number of the step. A checkpoint is written every two minutes
and at the end; the same command goes on from it. With another ``--steps`` the schedule of the learning rate follows the
new number. ``log.csv`` in the working folder gets a line every 20 steps.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from images import Batches, photographs, synthetic
from start import components, steps
from torch import Tensor

from rdpbench.codecs.learned.entropy import set_tables
from rdpbench.codecs.learned.mini_network import MiniNetwork

LAMBDAS = {
    # Times 255^2 MSE, and times 1 - MS-SSIM, both of values in [0, 1].
    "mse": (0.0016, 0.0035, 0.0075, 0.016, 0.035, 0.075),
    "ms-ssim": (2.0, 4.5, 10.0, 22.0, 50.0, 110.0),
}
COLUMNS = ("step", "seconds", "loss", "bpp", "psnr", "ms_ssim", "learning_rate")


def forward(net: MiniNetwork, planes: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
    """Images after coding, and bits per pixel of each ``(B,)``.

    Rates are those of latents with uniform noise; transforms see rounded ones, with gradients passed on (Minnen and
    Singh 2020).
    """
    with torch.autocast("cpu", torch.bfloat16):
        y, z = net.analyse(planes, quality)
    y, z = y.float(), z.float()
    _, z_likelihoods = net.entropy_bottleneck(z, training=True)
    with torch.autocast("cpu", torch.bfloat16):
        scales, means = net.parameters_of(passed(z))
    scales, means = scales.float().clamp(min=0.11), means.float()
    away = (y - means + torch.empty_like(y).uniform_(-0.5, 0.5)).abs()
    y_likelihoods = below((0.5 - away) / scales) - below((-0.5 - away) / scales)
    with torch.autocast("cpu", torch.bfloat16):
        out = net.synthesise(passed(y - means) + means, quality)
    pixels = planes.shape[2] * planes.shape[3]
    bits = [-one.clamp(min=1e-9).log2().sum((1, 2, 3)) for one in (y_likelihoods, z_likelihoods)]
    return out.float(), (bits[0] + bits[1]) / pixels


def passed(values: Tensor) -> Tensor:
    """Rounded, with the gradient of the identity."""
    return values + (values.round() - values).detach()


def below(deviations: Tensor) -> Tensor:
    """Probability that a normal variable is below so many standard deviations."""
    return 0.5 * torch.erfc(-deviations / math.sqrt(2))


def step_of(net: MiniNetwork, planes: Tensor, metric: str, every: Sequence[float]) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch at random rates, one for each lambda, and what is logged."""
    from pytorch_msssim import ms_ssim

    points = torch.randint(len(every), (len(planes),))
    out, bpp = forward(net, planes, points + 1.0)
    errors = (out - planes).square().mean((1, 2, 3))
    seen = {"bpp": float(bpp.detach().mean()), "psnr": float(-10 * errors.detach().log10().mean())}
    lambdas = torch.tensor(every)[points]
    if metric == "mse":
        distortion = 255**2 * errors
    else:
        similar = ms_ssim(out, planes, data_range=1.0, size_average=False, win_size=11)
        seen["ms_ssim"] = float(similar.detach().mean())
        distortion = 1 - similar
    middle = math.sqrt(every[0] * every[-1])
    # Divided by what the rate is about proportional to: a per cent of it counts alike everywhere.
    loss = ((lambdas * distortion + bpp) * (middle / lambdas).sqrt()).mean()
    return loss, seen


def rate_at(step: int, arguments: argparse.Namespace) -> float:
    """Learning rate: a short rise, then constant, and over the last steps half a cosine down to a fiftieth."""
    rise = min(1.0, (step + 1) / arguments.warm)
    falling = max(0.0, 1 - (arguments.steps - step) / arguments.fall)
    return float(arguments.learning_rate * rise * (0.02 + 0.49 * (1 + math.cos(math.pi * falling))))


def train(arguments: argparse.Namespace) -> None:
    """Train until the last step, from the last checkpoint on if there is one."""
    torch.set_num_threads(arguments.threads)
    work = Path(arguments.work)
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    photos = photographs(Path(arguments.photos))
    drawn = synthetic(arguments.synthetic, photos, work / "synthetic.npy", arguments.threads)
    batches = Batches(photos, drawn, arguments.share, arguments.side, arguments.batch)
    net = MiniNetwork().to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(groups(net), lr=arguments.learning_rate)
    state: dict[str, Any] = {"step": 0, "seconds": 0.0}
    if (work / "last.pt").exists():
        state = torch.load(work / "last.pt", weights_only=True)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        print(f"goes on from step {state['step']}", flush=True)
    elif arguments.begin:
        net.load_state_dict(torch.load(arguments.begin, weights_only=True)["net"])
    else:
        crops = [torch.from_numpy(batches(number, arguments.seed + 1)).float() / 255 for number in range(12)]
        components(net, torch.cat(crops))
        steps(net, LAMBDAS["mse"])
    with ThreadPoolExecutor(1) as ahead, (work / "log.csv").open("a", newline="") as file:
        log = csv.DictWriter(file, COLUMNS, restval="")
        if file.tell() == 0:
            log.writeheader()
        _loop(arguments, net, optimiser, state, batches, ahead, log, file)


def groups(net: MiniNetwork) -> list[dict[str, Any]]:
    """Parameters for the optimiser; the quantiles are found at export."""
    return [{"params": [one for name, one in net.named_parameters() if not name.endswith("quantiles")]}]


def _loop(
    arguments: argparse.Namespace, net: MiniNetwork, optimiser: Any, state: dict[str, Any], batches: Batches,
    ahead: ThreadPoolExecutor, log: Any, file: Any,
) -> None:  # fmt: skip
    began, saved = time.monotonic() - state["seconds"], time.monotonic()
    every = arguments.lambdas or LAMBDAS[arguments.metric]
    sums: dict[str, float] = {}
    count = 0
    coming = ahead.submit(batches, state["step"], arguments.seed)
    for step in range(state["step"], arguments.steps):
        planes = torch.from_numpy(coming.result()).float().div(255).contiguous(memory_format=torch.channels_last)
        coming = ahead.submit(batches, step + 1, arguments.seed)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, arguments)
        torch.manual_seed(arguments.seed * 1_000_003 + step)  # of the noise
        loss, seen = step_of(net, planes, arguments.metric, every)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        loss = loss.detach()
        torch.nn.utils.clip_grad_norm_([one for one in net.parameters() if one.grad is not None], 1.0)
        if math.isfinite(float(loss)):
            optimiser.step()
        for key, value in {**seen, "loss": float(loss)}.items():
            sums[key] = sums.get(key, 0.0) + value
        count += 1
        state |= {"step": step + 1, "seconds": time.monotonic() - began}
        if (step + 1) % 20 == 0:
            means = {key: round(value / count, 5) for key, value in sums.items()}
            sums, count = {}, 0
            line = {"step": step + 1, "seconds": round(state["seconds"], 1), **means}
            log.writerow({**line, "learning_rate": round(rate_at(step, arguments), 8)})
            file.flush()
            show(line, arguments.steps)
        if time.monotonic() - saved > 90 or step + 1 == arguments.steps:
            keep({**state, "net": net.state_dict(), "optimiser": optimiser.state_dict()}, Path(arguments.work))
            saved = time.monotonic()


def show(line: dict[str, Any], steps: int) -> None:
    """A line of progress, over itself on a terminal."""
    text = "  ".join(f"{key} {value:g}" for key, value in line.items()) + f"  of {steps}"
    print(text, end="\r" if sys.stdout.isatty() else "\n", flush=True)


def keep(state: dict[str, Any], work: Path) -> None:
    """Write the checkpoint, whole or not at all."""
    part = work / f".{os.getpid()}.part"
    torch.save(state, part)
    part.replace(work / "last.pt")


def finished(net: MiniNetwork) -> dict[str, Tensor]:
    """What the codec loads: transforms in half precision, z's distribution in single, with its tables of integers.

    z is rounded around 0; the ends of its tables are where a billionth is left outside.
    """
    halves = {
        key: one.half() for key, one in net.state_dict().items() if key.startswith(("g_a.", "g_s.", "h_a.", "h_s."))
    }
    exact = net.entropy_bottleneck
    quantiles = exact.quantiles.detach().clone()
    quantiles[:, 0, 1] = 0
    for at, level in ((0, 5e-10), (2, 1 - 5e-10)):
        quantiles[:, 0, at] = ends(exact, math.log(level / (1 - level)))
    exact.quantiles.data.copy_(quantiles)
    set_tables(net, {})
    keys = [key for key in net.state_dict() if key.startswith(("gain", "inverse", "entropy_bottleneck."))]
    return {key: one.contiguous() for key, one in (halves | {key: net.state_dict()[key] for key in keys}).items()}


def ends(model: Any, logit: float) -> Tensor:
    """Where each channel's cumulative distribution reaches a value, by bisection."""
    low, high = torch.full((model.channels, 1, 1), -2000.0), torch.full((model.channels, 1, 1), 2000.0)
    with torch.no_grad():
        for _ in range(60):
            middle = (low + high) / 2
            right = model._logits_cumulative(middle, stop_gradient=True) > logit
            low, high = torch.where(right, low, middle), torch.where(right, middle, high)
    return high.reshape(-1)


def export(arguments: argparse.Namespace) -> None:
    """Write the weights that ship, from the last checkpoint."""
    import hashlib

    from safetensors.torch import save_file

    net = MiniNetwork()
    state = torch.load(Path(arguments.work) / "last.pt", weights_only=True)
    net.load_state_dict(state["net"])
    save_file(finished(net), arguments.to)
    content = Path(arguments.to).read_bytes()
    print(f"step {state['step']}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("train", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    one.add_argument("--photos", required=True, help="folder of PNG photographs")
    one.add_argument("--work", required=True, help="folder for checkpoints, log and synthetic pictures")
    one.add_argument("--metric", choices=sorted(LAMBDAS), default="mse")
    one.add_argument("--lambdas", type=float, nargs=6, help="ascending; by default those at the top of this file")
    one.add_argument("--begin", help="checkpoint to begin from")
    one.add_argument("--steps", type=int, default=20000)
    one.add_argument("--batch", type=int, default=8)
    one.add_argument("--side", type=int, default=192, help="of a crop; a multiple of 64")
    one.add_argument("--share", type=float, default=0.5, help="of crops that come from photographs")
    one.add_argument("--synthetic", type=int, default=96, help="number of synthetic pictures")
    one.add_argument("--learning-rate", type=float, default=5e-4)
    one.add_argument("--warm", type=int, default=200, help="steps in which the learning rate rises")
    one.add_argument("--fall", type=int, default=4000, help="steps in which it falls, at the end")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--threads", type=int, default=1)
    one.set_defaults(do=train)
    two = commands.add_parser("export")
    two.add_argument("--work", required=True)
    two.add_argument("--to", required=True)
    two.set_defaults(do=export)
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()
