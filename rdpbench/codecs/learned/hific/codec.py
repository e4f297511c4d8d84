"""HiFiC by the checkpoints of its PyTorch port: generative compression for three target rates.

Paper: Mentzer et al., "High-Fidelity Generative Image Compression", NeurIPS 2020. Port and weights: Justin-Tan,
high-fidelity-generative-compression (Apache-2.0), trained for 400,000 steps where the paper has 2,000,000; so it is not
the paper's model (that is ``hific-tfci``). A target is the rate in bits per pixel that was asked for in training on
OpenImages; it is never the rate of an image.

In the bitstream: height and width, the string of z, the string of y; with ``portable=true`` the doubtful cases.

As in the port: the image is continued by reflection, right and below, to multiples of 16, then its latents to multiples
of 4; hyperlatents are rounded around 0, latents around their means; tables reach to a tail of 2^-8; the networks for
0.14 and 0.45 see [-1, 1], end in a tanh and have normally distributed latents, that for 0.3 sees [0, 1] and has
logistic ones (these settings are read from the checkpoint).

Where this departs from the port, and why:

- Strings are CompressAI's (one rANS state). The port's file has a state for each channel, 540 of 8 bytes, which adds
  3 to 4 kB to any image: 0.06 to 0.09 bit per pixel on Kodak. Symbols 8 or more outside a row it reads back wrongly.
  Distributions, tables and symbols are the same, and so is the rate but for those states. The container is counted.
- The port prints an estimate, divided by the padded image's pixels (``padded``) with ``--reconstruct``.
- Its PNGs are stretched so that the least value becomes 0 and the greatest 255, image by image. This one clamps.
- Images with a side below 65 pixels, which the port refuses (a reflection wider than what it reflects), are first
  continued to 65 by their last row and column.

A checkpoint is training's: discriminator and optimisers are dropped by name. It holds Python values beside tensors. As
the port writes them they pass torch's ``weights_only``; should a published file hold objects of other classes, these
become inert placeholders (`rdpbench.assets.load.Inert`), and no code of the file runs.

The tables that HiFiC's PyTorch port codes with, built in double precision.

A row reaches as far as all but 2^-8 of the probability; what lies beyond is escaped. The port's checkpoints hold no
tables: its coder builds them each time, in single precision. So they are always built here, too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rdpbench.assets.load import Inert, read_file
from rdpbench.assets.weights import Card, Weights
from rdpbench.codecs.contract import Rate, Side
from rdpbench.codecs.learned.codec import LearnedCodec
from rdpbench.codecs.learned.entropy import Coder
from rdpbench.codecs.learned.frames import Frame
from rdpbench.codecs.learned.systems import System
from rdpbench.codecs.learned.tables import Tables, check, default_scales
from rdpbench.codecs.legacy import framed, nominal
from rdpbench.errors import CodecError, MissingNeed

if TYPE_CHECKING:
    from torch import Tensor

REGIMES = {0.14: ("low", "hific_low.pt"), 0.3: ("med", "hific_med.pt"), 0.45: ("high", "hific_hi.pt")}
"""By target: the port's name for it, and the file in its Zenodo record."""
TARGETS = Rate("target", 0.14, 0.45, step=0, points=tuple(REGIMES), listed=True)
DROPPED = ("Discriminator.*", "Hyperprior.hyperprior_entropy_model.*", "Hyperprior.prior_entropy_model.*")
"""Training's discriminator; in files of evaluation also the density a second time, and tables, which are built anew."""
SMALLEST = 65
"""Below this side some reflection inside the port's networks is wider than what it reflects."""
FRAMING = 42
"""Bytes around the strings in the port's file: 11 sizes of 2, 3 marks of 4, 2 lengths of 4."""


@dataclass(frozen=True)
class Settings:
    """What tensors do not say; the defaults are those of the targets 0.14 and 0.45."""

    blocks: int = 9
    likelihood: str = "gaussian"
    symmetric: bool = True
    """Do the networks see [-1, 1] and end in a tanh?"""


def checkpoint(target: float) -> Weights:
    """The published checkpoint.

    >>> checkpoint(0.45).card.file
    'hific_hi.pt'
    """
    regime, file = REGIMES[target]
    return Weights(
        Card(
            id=f"hific-port/{regime}",
            source=f"https://zenodo.org/record/4026003/files/{file}",
            revision="Zenodo record 4026003",
            file=file,
            sha256=None,
            bytes=0,
            licence="Apache-2.0, as the port; the weights state no licence of their own",
            note=f"HiFiC, PyTorch port, {regime}: trained for {target:g} bit per pixel; about 2 GB with its optimisers",
        ),
        key="model_state_dict",
    )


def read_port(path: Path, regime: str = "") -> tuple[Mapping[str, Any], Settings]:
    """What a checkpoint holds as the port's training writes it, and its settings.

    Args:
        path: the file.
        regime: what its settings must say of it; empty takes any, for own weights.

    Raises:
        CodecError: not such a file, settings of another model, or of another regime.
    """
    loaded = read_file(path, inert=True)
    if not isinstance(loaded, Mapping):
        raise CodecError(f"{path.name} holds a {type(loaded).__name__}, expected the port's entries by name")
    return loaded, _settings(loaded.get("args"), path.name, regime)


def _settings(args: object, what: str, regime: str) -> Settings:
    given = vars(args) if isinstance(args, Inert) else args
    if not isinstance(given, Mapping):
        raise CodecError(f"{what} holds no settings ('args'), without which its likelihood and range are not known")
    expected: dict[str, list[object]] = {
        **({"regime": [regime]} if regime else {}),
        "latent_channels": [220],
        "likelihood_type": ["gaussian", "logistic"],
        "normalize_input_image": [False, True],
        "n_residual_blocks": list(range(1, 33)),
        "use_channel_norm": [True],
    }
    # Files older than these two switches lack them.
    expected |= {name: [False] for name in ("use_latent_mixture_model", "sample_noise") if name in given}
    wrong = [f"{name}={given.get(name)!r}" for name, legal in expected.items() if given.get(name) not in legal]
    if wrong:
        of = f"HiFiC's regime {regime!r}" if regime else "HiFiC"
        raise CodecError(f"{what} is no checkpoint of {of}: its settings say {', '.join(wrong)}")
    blocks, likelihood = int(given["n_residual_blocks"]), str(given["likelihood_type"])
    return Settings(blocks, likelihood, bool(given["normalize_input_image"]))


class PortFrame(Frame):
    """Reflection to multiples of 16, right and below; small images are continued first.

    >>> PortFrame(16, "reflect", "corner").padded(20, 100)
    (80, 112)
    """

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Sides of the padded image."""
        return super().padded(max(height, SMALLEST), max(width, SMALLEST))

    def pad(self, planes: Tensor) -> Tensor:
        """``(B, 3, H, W)`` padded."""
        from torch.nn import functional

        height, width = planes.shape[-2:]
        margins = (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height))
        return super().pad(functional.pad(planes, margins, mode="replicate"))


class HiFiCSystem:
    """The networks with their tables, ready to code (`System`)."""

    frame: Frame = PortFrame(16, fill="reflect", place="corner")

    def __init__(self, net: Any, settings: Settings, *, device: str = "cpu", portable: bool = False) -> None:
        """Take the module over: it is moved to the device, and with ``portable`` to double precision but for G."""

        self.device, self.portable, self.settings = device, portable, settings
        self.z = density_tables(net.Hyperprior.hyperlatent_likelihood)
        self.y = scale_tables(settings.likelihood)
        self.channels = net.Hyperprior.analysis_net.conv1.in_channels
        self.net = net.eval().requires_grad_(False).to(device)
        if portable:
            self.net.double()
            self.net.Generator.float()

    def sections(self, height: int, width: int) -> dict[str, int]:
        """See `System`."""
        area = _hyper_side(height) * _hyper_side(width)
        return {"z": len(self.z.rows) * area, "y": self.channels * 16 * area}

    def analyse(self, planes: Tensor, sides: Sequence[Side]) -> dict[str, Tensor]:  # noqa: ARG002 - for those with text
        """y, reflected to multiples of 4, and z."""
        from torch.nn import functional

        y = self.net.Encoder((planes - 0.5) / 0.5 if self.settings.symmetric else planes)
        height, width = y.shape[-2:]
        y = functional.pad(y, (0, -width % 4, 0, -height % 4), mode="reflect")
        return {"y": y, "z": self.net.Hyperprior.analysis_net(y)}

    def code(self, coder: Coder, height: int, width: int, latents: Mapping[str, Tensor]) -> Tensor:
        """See `System`."""
        shape = (len(self.z.rows), _hyper_side(height), _hyper_side(width))
        z = coder.factorized("z", self.z, shape, latents.get("z"))
        means, scales = self.net.Hyperprior.synthesis_mu(z), self.net.Hyperprior.synthesis_std(z)
        return coder.gaussian("y", self.y, scales, means, latents.get("y"))

    def synthesise(self, latents: Tensor) -> Tensor:
        """See `System`."""
        import torch

        planes: Tensor = self.net.Generator(latents.float())
        return (torch.tanh(planes) + 1) / 2 if self.settings.symmetric else planes


def _hyper_side(side: int) -> int:
    return -(-side // 64)


def random_network(widths: Any, settings: Settings, deviation: float) -> Any:
    """The module with seeded weights; its latents, and with them its rate, grow with the deviation."""
    import torch

    from rdpbench.codecs.learned.hific.network import Network
    from rdpbench.codecs.learned.systems import picture, rescale, seeded

    net: Any = seeded(lambda: Network(widths)).eval()
    hyper = net.Hyperprior
    with torch.no_grad():
        planes = picture()
        rescale(net.Encoder.conv_block_out[1], lambda: net.Encoder(planes), deviation)
        y = net.Encoder(planes)
        rescale(hyper.analysis_net.conv3, lambda: hyper.analysis_net(y), 2)
        z = torch.round(hyper.analysis_net(y))
        rescale(hyper.synthesis_mu.conv3, lambda: hyper.synthesis_mu(z), deviation)
        rescale(hyper.synthesis_std.conv3, lambda: hyper.synthesis_std(z), deviation / 4)
        hyper.synthesis_std.conv3.bias += deviation
        pixels = net.Generator.conv_block_out[1]
        rescale(pixels, lambda: net.Generator(torch.round(y)), 0.5 if settings.symmetric else 0.25)
        if not settings.symmetric:
            pixels.bias += 0.5
    return net


@dataclass(frozen=True)
class HiFiC(LearnedCodec):
    """HiFiC's PyTorch port."""

    name: ClassVar[str] = "hific"
    rate: ClassVar[Rate] = TARGETS

    target: float = 0.14
    """Bits per pixel asked for in training: 0.14, 0.3 or 0.45."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rate.check(self.name, self.target)

    def published(self) -> Weights:
        return checkpoint(self.target)

    def make(self) -> System:
        from rdpbench.codecs.learned.hific.network import Network, Widths

        if self.weights == "official":
            source = self.source()
            if text := source.missing():
                raise MissingNeed(text)
            loaded, settings = read_port(source.path, "" if self.checkpoint else REGIMES[self.target][0])
            net = self.load(Network(Widths(blocks=settings.blocks)), loaded, drop=DROPPED)
        else:
            settings = Settings(likelihood="logistic", symmetric=False) if self.target == 0.3 else Settings()
            widths = Widths((6, 8, 8, 12, 16), 12, 8, 2) if self.weights == "random" else Widths()
            net = random_network(widths, settings, 2.0 ** list(REGIMES).index(self.target))
        return HiFiCSystem(net, settings, device=self.device, portable=self.portable)

    def printed(self, strings: Mapping[str, bytes], height: int, width: int) -> Mapping[str, float]:
        """The port's file, but for its 540 coder states; and the target."""
        own = strings.values()
        target = {} if self.checkpoint else {"nominal": nominal(self.target, (height, width))}
        return {"framed": framed(own, FRAMING), **target}


TAIL = 2.0**-8
LEAST = 1e-9
"""Least probability of a hyperlatent inside its row."""
WIDEST = 1 << 12
"""No trained distribution of hyperlatents reaches so far."""


def scale_tables(likelihood: str) -> Tables:
    """Rows of the latents for the 64 scales of ``gaussian`` or ``logistic`` distributions.

    >>> len(scale_tables("gaussian").rows[-1])
    1481
    """
    scales = default_scales().double()
    below, reach = _DISTRIBUTIONS[likelihood]
    rows, offsets = [], []
    for scale in scales.tolist():
        centre = math.ceil(scale * reach)
        # Of 0, 1, 2, ... from the lower tail, where nothing cancels.
        half = [below((0.5 - away) / scale) - below((-0.5 - away) / scale) for away in range(centre + 1)]
        rows.append([*reversed(half[1:]), *half, 2 * below((-0.5 - centre) / scale)])
        offsets.append(-centre)
    return _tables(rows, offsets, edges=scales[:-1])


def density_tables(density: Any) -> Tables:
    """Rows of the hyperlatents, one for each channel of a `hific_network.Density`; symbols are around zero.

    Raises:
        CodecError: a distribution is wider than any trained one, or no distribution.
    """
    import torch

    exact = copy.deepcopy(density).double().cpu()
    channels = exact.H_0.shape[0]
    edge = math.log(2 / TAIL - 1)
    width = 32
    with torch.no_grad():
        while True:
            at = torch.arange(-width, width + 1, dtype=torch.float64).expand(channels, 1, -1)
            logits = exact(at)[:, 0]
            # They rise, so the number of places inside is the first place outside.
            down = (logits[:, : width + 1] > -edge).sum(1).tolist()
            up = (logits[:, width:] < edge).sum(1).tolist()
            if bool(torch.isfinite(logits).all()) and max(*down, *up) <= width:
                break
            width *= 2
            if width > WIDEST:
                raise CodecError("a distribution of hyperlatents is wider than any trained one: are these its weights?")
        pmf = _interval(exact(torch.cat([at - 0.5, at[..., -1:] + 0.5], 2))[:, 0])
    rows = []
    for number in range(channels):
        inside = pmf[number, width - down[number] : width + up[number] + 1].clamp(min=LEAST).tolist()
        rows.append([*inside, max(1 - math.fsum(inside), 0.0)])
    return _tables(rows, [-one for one in down], medians=torch.zeros(channels, dtype=torch.float64))


def _interval(logits: Tensor) -> Tensor:
    """Probabilities between neighbours, from whichever tail is nearer."""
    import torch

    lower, upper = logits[:, :-1], logits[:, 1:]
    sign = -torch.sign(lower + upper)
    return (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()


def quantised(pmf: Sequence[float]) -> list[int]:
    """Cumulative counts of 65536 as the port makes them: the sums are rounded, then none of the counts may be 0.

    CompressAI's function rounds each probability for itself; in a row of 3197 symbols 3106 of the 65536 are then lost
    to the escape.

    >>> quantised([0.25, 0.75, 0.0])
    [0, 16383, 65535, 65536]
    """
    sums = np.cumsum(np.asarray(pmf, np.float64))
    counts = np.diff(np.rint(sums / sums[-1] * 65536), prepend=0).astype(np.int64)
    for place in np.flatnonzero(counts == 0):
        counts[np.where(counts > 1, counts, 1 << 17).argmin()] -= 1  # the rarest that can spare one
        counts[place] = 1
    return [0, *np.cumsum(counts).tolist()]


def _tables(
    pmfs: Sequence[Sequence[float]], offsets: list[int], edges: Tensor | None = None, medians: Tensor | None = None
) -> Tables:
    rows = [quantised(pmf) for pmf in pmfs]
    sizes = [len(row) for row in rows]
    table = np.zeros((len(rows), max(sizes)), np.int64)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    check(table, sizes, offsets)
    return Tables(rows, sizes, offsets, edges=edges, medians=medians)


def _gaussian(deviations: float) -> float:
    return math.erfc(-deviations / math.sqrt(2)) / 2


def _logistic(deviations: float) -> float:
    power = math.exp(-abs(deviations))
    return (1 if deviations > 0 else power) / (1 + power)


_DISTRIBUTIONS: dict[str, tuple[Callable[[float], float], float]] = {
    "gaussian": (_gaussian, -NormalDist().inv_cdf(TAIL / 2)),
    "logistic": (_logistic, math.log(2 / TAIL - 1)),
}
"""By name: what is below so many scales, and how many scales hold all but the tail."""
