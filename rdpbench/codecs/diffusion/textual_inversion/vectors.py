"""Vectors that make a frozen U-Net predict the noise in an image's latents: how they are searched, and sent as bytes.

**Search** (Gal et al., "An image is worth one word", ICLR 2023, as Pan et al. use it). The vectors stand for what the
text tower gives out: the U-Net sees the empty prompt's 77 states, to the K that follow the first of which they are
added. One step, for free vectors ``v`` (K x D) that start at zero, and latents z of the image:

1. quantise ``v`` to what would be sent, with the step that fits the budget;
2. draw times t and noise e, make ``z_t = sqrt(a_t) z + sqrt(1 - a_t) e``, and take the squared error between what the
   U-Net predicts under the *quantised* vectors and what it should (e, or v where the model predicts that);
3. take the gradient at the quantised vectors, and let Adam apply it to the free ones. Its rate falls linearly to zero.

**Code.** A coefficient x becomes the whole number ``sign(x) floor(|x| / step + 1/3)`` and comes back as that number
times the step, which is the smallest half-precision number at which the section fits the budget. In the section: the
number of vectors (a byte), the step (2 bytes, big endian), the code. Of each number the magnitude comes first, in unary
up to 15 with a count of zeros and ones for each place, which both sides learn from what was coded before; then, of 15
and more, the rest as Exp-Golomb bits; then the sign. All arithmetic is that of whole numbers, so that any machine reads
the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.codecs.diffusion import sampling
from rdpbench.codecs.diffusion.codec import OnStep, Searched, Unfinished
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.diffusion.sampling import Condition
from rdpbench.errors import BitstreamError, CodecError, ConfigError
from rdpbench.lazy import Generator, Tensor, functional, torch

Vectors: TypeAlias = NDArray[np.float32]
"""``(K, D)``."""
Values: TypeAlias = NDArray[np.floating[Any]]
Symbols: TypeAlias = NDArray[np.int64]

PREDICTIONS = ("epsilon", "v_prediction")
"""What U-Nets predict."""
PROBES = 8
"""Times of the probe, evenly spread."""
_STRIDE = 1 << 24
"""Seeds of a search lie between those of two runs."""
MOST = 75
"""Vectors that fit between the ends of what a text tower makes."""
PLACES = 15
"""Of the unary part; larger magnitudes go on as Exp-Golomb bits."""
LARGEST = PLACES + (1 << 16) - 2
"""Larger magnitudes are cut to it."""
OFFSET = 1 / 3
"""Of the quantiser, as of video encoders: at a bit a coefficient, values of a normal distribution then come back near
the means of their cells. 1/2 would be plain rounding."""
HEAD = 3
"""Bytes before the code."""
_EVEN = 1 << 15
"""Probability of a zero, in 1/65536, of bits that are as often one."""
_LARGEST_STEP = 0x7BFF
"""The pattern of the largest half-precision number; patterns of positive ones are in order."""


@dataclass(frozen=True)
class VectorSearch:
    """How vectors are searched; the fields are those of the codec."""

    vectors: int = 16
    bits: float = 1.0
    steps: int = 1000
    batch: int = 2
    learning_rate: float = 0.01

    def budget(self, width: int) -> float:
        """Bits of the code.

        >>> VectorSearch().budget(768)
        12288.0
        """
        return self.vectors * width * self.bits


def width_of(models: Models) -> int:
    """D: length of a vector."""
    return int(models.unet.config.cross_attention_dim)


def empty_prompt(models: Models) -> Condition:
    """What the U-Net sees of no words; can be computed with, whatever mode the caller computes in."""
    with torch.inference_mode(False), torch.no_grad():
        return sampling.condition(models, [])


def condition(empty: Condition, offsets: Tensor) -> Condition:
    """What the U-Net sees of vectors ``(K, D)``: the states of the empty prompt, with them added from the second on."""
    behind = empty.hidden.shape[1] - 1 - len(offsets)
    whole = functional.pad(offsets, (0, 0, 1, behind)).to(empty.hidden.device, empty.hidden.dtype)
    return Condition(empty.hidden + whole, empty.pooled)


def check_prediction(models: Models) -> str:
    """What the U-Net predicts, one of `PREDICTIONS`; anything else raises `ConfigError`."""
    kind = str(models.layout.schedule["prediction_type"])
    if kind not in PREDICTIONS:
        raise ConfigError(f"the model predicts {kind!r}; textual inversion knows {' and '.join(PREDICTIONS)}")
    return kind


class Objective:
    """The diffusion loss of an image, as a function of vectors."""

    def __init__(self, models: Models, latents: Tensor, seed: int) -> None:
        """Take the networks, scaled latents ``(1, 4, h, w)`` and the seed of all draws."""
        self._models, self._seed = models, seed
        self._type = check_prediction(models)
        self._empty = empty_prompt(models)
        # Copies, since what was made where torch only infers cannot be trained with.
        with torch.inference_mode(False):
            self._latents = latents.to(models.device).clone()
            self._alphas: Tensor = sampling.scheduler(models, "ddim", 1).alphas_cumprod.to(models.device).clone()
        self.values = self._latents.numel()

    def loss(self, offsets: Tensor, step: int, batch: int) -> Tensor:
        """Mean squared error of a step's draws."""
        draw = self._draw(step)
        # Each of B times falls into a B-th part of the schedule of its own.
        spread = (torch.rand(batch, generator=draw) + torch.arange(batch)) / batch
        noise = torch.randn(batch, *self._latents.shape[1:], generator=draw)
        return self._error(offsets, (spread * len(self._alphas)).long(), noise)

    def probe(self, offsets: Tensor) -> float:
        """The same over times and noise that are always the same: what falls, if anything is learned."""
        draw, errors = self._draw(_STRIDE - 1), []
        with torch.inference_mode(False), torch.no_grad():
            for number in range(PROBES):
                time = torch.tensor([(2 * number + 1) * len(self._alphas) // (2 * PROBES)])
                noise = torch.randn(self._latents.shape, generator=draw)
                errors.append(float(self._error(offsets, time, noise)))
        return float(np.mean(errors))

    def _draw(self, number: int) -> Generator:
        """All draws of a step follow from seed and number: a search that was killed goes on with the same ones."""
        return torch.Generator("cpu").manual_seed((self._seed * _STRIDE + number) % (1 << 63))

    def _error(self, offsets: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        models = self._models
        times, noise = times.to(models.device), noise.to(models.device)
        alphas = self._alphas[times].reshape(-1, 1, 1, 1)
        noisy = alphas.sqrt() * self._latents + (1 - alphas).sqrt() * noise
        due = noise if self._type == "epsilon" else alphas.sqrt() * noise - (1 - alphas).sqrt() * self._latents
        seen = condition(self._empty, offsets)
        prediction = models.unet(
            noisy.to(models.dtype),
            times,
            encoder_hidden_states=seen.hidden.expand(len(times), -1, -1),
            added_cond_kwargs=sampling.added_conditions(models, [seen], noisy),
        ).sample
        return (prediction.float() - due).square().mean()


def search(
    objective: Objective,
    width: int,
    settings: VectorSearch,
    *,
    device: str = "cpu",
    on_step: OnStep | None = None,
    unfinished: Unfinished | None = None,
) -> Vectors:
    """The free vectors ``(K, width)`` at the end of a search; quantised, they are what is sent.

    ``on_step`` is called with the steps that are done and the mean error of the last ones.

    Raises:
        CodecError: a loss that is not finite.
    """
    # Gradients are needed, whatever mode the caller computes in.
    with torch.inference_mode(False), torch.enable_grad():
        state = SearchedVectors(objective, width, settings, device)
        state.finish(settings.steps, on_step, unfinished)
        return state.free.detach().cpu().numpy()


class SearchedVectors(Searched):
    """The vectors of an image."""

    tracked = ("error",)

    def __init__(self, objective: Objective, width: int, settings: VectorSearch, device: str) -> None:
        self._objective, self._settings = objective, settings
        self._budget = settings.budget(width)
        self.free = torch.zeros(settings.vectors, width, device=device, requires_grad=True)
        self.optimiser = torch.optim.Adam([self.free], lr=settings.learning_rate)
        self.error = float("nan")

    def shown(self) -> float:
        """The mean error of the last steps."""
        return float(self.error)

    def advance(self) -> None:
        """One step."""
        settings = self._settings
        free = self.free.detach().cpu().numpy()
        step_size = fit_step(free, self._budget)
        sent = torch.from_numpy(values_of(quantise(free, step_size), step_size)).to(self.free.device).requires_grad_()
        loss = self._objective.loss(sent, self.step, settings.batch)
        if not bool(torch.isfinite(loss)):
            raise CodecError("textual inversion: the loss is not finite: the network's weights are broken")
        # The sum, not the mean, is differentiated: half precision has no numbers as small as the mean's gradients.
        (self.free.grad,) = torch.autograd.grad(loss * self._objective.values, [sent])
        self.optimiser.param_groups[0]["lr"] = settings.learning_rate * (1 - self.step / settings.steps)
        self.optimiser.step()
        self.step += 1
        error = float(loss.detach())
        self.error = error if self.step == 1 else 0.95 * float(self.error) + 0.05 * error


def quantise(values: Values, step: float) -> Symbols:
    """Whole numbers of values of any shape.

    >>> quantise(np.array([0.6, 0.7, -1.8]), 1.0).tolist()
    [0, 1, -2]
    """
    with np.errstate(over="ignore"):  # beyond all bounds is cut, as beyond ours
        magnitudes = np.floor(np.abs(values.astype(np.float64)) / step + OFFSET)
    return (np.sign(values) * np.minimum(magnitudes, LARGEST)).astype(np.int64)


def values_of(symbols: Symbols, step: float) -> Vectors:
    """What the decoder makes of the numbers.

    >>> float(values_of(np.array([3]), 0.5)[0])
    1.5
    """
    # A damaged step may make values that are not finite; the networks' output is checked.
    with np.errstate(over="ignore"):
        return symbols.astype(np.float32) * np.float32(step)


def code_bits(symbols: Symbols) -> float:
    """Bits of the code, from how often each magnitude is there; the coder takes less than 1 % more.

    A place that sees a zeros and b ones in any order takes ``log2 ((a + b + 1)! / (a! b!))`` bits when its
    probabilities are the counts so far.

    >>> round(code_bits(np.zeros(12288, np.int64)), 2)
    13.59
    """
    magnitudes = np.abs(symbols).reshape(-1)
    counts = np.bincount(np.minimum(magnitudes, PLACES), minlength=PLACES + 1)
    bits = float(np.count_nonzero(magnitudes))
    left = int(magnitudes.size)
    for here in counts[:PLACES].tolist():
        if not left:
            break
        more = left - here
        bits += (math.lgamma(left + 2) - math.lgamma(here + 1) - math.lgamma(more + 1)) / math.log(2)
        left = more
    rest = magnitudes[magnitudes >= PLACES] - PLACES + 1
    return bits + float((2 * np.floor(np.log2(rest)) + 1).sum())


def fit_step(values: Values, budget: float) -> float:
    """The smallest step at which the code of values takes no more than so many bits.

    Raises:
        CodecError: values that are not finite.

    >>> fit_step(np.zeros(768), 20)
    6.103515625e-05
    """
    if not np.isfinite(values).all():
        raise CodecError("the vectors are not finite: the network's weights are broken, or the learning rate too high")
    # Smaller ones would cut the largest value, or are numbers that some machines take for zero.
    least = min(float(np.abs(values).max()) / LARGEST, _half(_LARGEST_STEP))
    low, high = max(0x0400, int(np.float16(least).view(np.uint16)) + 1), _LARGEST_STEP
    while low < high:
        middle = (low + high) // 2
        if code_bits(quantise(values, _half(middle))) <= budget:
            high = middle
        else:
            low = middle + 1
    return _half(low)


def pack(values: Vectors, budget: float) -> bytes:
    """The section of vectors ``(K, D)`` with a code of at most ``budget`` bits, filled up to a byte.

    The code of zeros alone takes a few bytes, which no step makes fewer.

    Raises:
        CodecError: no vectors or more than `MOST`, or values that are not finite.

    >>> len(pack(np.random.default_rng(0).normal(size=(16, 768)).astype(np.float32), 12288))
    1539
    """
    if not 1 <= len(values) <= MOST:
        raise CodecError(f"{len(values)} vectors cannot be sent, 1 to {MOST} can")
    step = fit_step(values, budget)
    while True:
        symbols = quantise(values, step)
        code = encode(symbols)
        pattern = int(np.float16(step).view(np.uint16))
        if 8 * len(code) < budget + 8 or not symbols.any() or pattern == _LARGEST_STEP:
            return bytes([len(values)]) + pattern.to_bytes(2, "big") + code
        step = _half(pattern + 1)


def unpack(section: bytes, width: int) -> Vectors:
    """The vectors ``(K, width)`` of a section; raises as `read_section`."""
    return values_of(*read_section(section, width))


def read_section(section: bytes, width: int) -> tuple[Symbols, float]:
    """Whole numbers ``(K, width)`` and the step of a section.

    Raises:
        BitstreamError: bytes that are no such section.
    """
    if len(section) < HEAD or not 1 <= section[0] <= MOST:
        raise BitstreamError(f"{len(section)} bytes are no section of 1 to {MOST} vectors")
    pattern = int.from_bytes(section[1:HEAD], "big")
    if not 0 < pattern <= _LARGEST_STEP:
        raise BitstreamError("the step of the vectors is not a positive number")
    symbols = decode(section[HEAD:], section[0] * width)
    return symbols.reshape(section[0], width), _half(pattern)


def _half(pattern: int) -> float:
    return float(np.uint16(pattern).view(np.float16))


def encode(symbols: Symbols) -> bytes:
    """The code of whole numbers.

    >>> encode(np.array([0, 1, -2])).hex(), len(encode(np.zeros(768, np.int64)))
    ('5f', 0)
    """
    coder = _Encoder()
    _code(coder, symbols.reshape(-1).tolist())
    return coder.finish()


def decode(code: bytes, count: int) -> Symbols:
    """So many whole numbers of a code.

    Raises:
        BitstreamError: bytes are left over, or a number that is never sent.
    """
    coder = _Decoder(code)
    symbols = np.array(_code(coder, [0] * count), np.int64)
    coder.check_done()
    return symbols


def _code(coder: _Encoder | _Decoder, symbols: list[int]) -> list[int]:
    """Put whole numbers into an encoder, or get as many from a decoder, which does not look at those given."""
    zeros, seen = [1] * PLACES, [2] * PLACES  # of each place of the unary part
    coded = []
    for symbol in symbols:
        size, magnitude = abs(symbol), 0
        while magnitude < PLACES:
            zero = min(max((zeros[magnitude] << 16) // seen[magnitude], 1), 65535)
            more = coder.bit(size > magnitude, zero)
            zeros[magnitude] += not more
            seen[magnitude] += 1
            if not more:
                break
            magnitude += 1
        else:
            magnitude += _code_rest(coder, size - PLACES)
        negative = magnitude > 0 and coder.bit(symbol < 0, _EVEN)
        coded.append(-magnitude if negative else magnitude)
    return coded


def _code_rest(coder: _Encoder | _Decoder, value: int) -> int:
    """The same for a number from 0 in Exp-Golomb bits."""
    digits, length, number = (value + 1).bit_length() - 1, 0, 1
    while coder.bit(length < digits, _EVEN):
        length += 1
        if length > 15:
            raise BitstreamError("a coefficient is larger than any that is sent: the bitstream is damaged")
    for place in range(length - 1, -1, -1):
        number = 2 * number + coder.bit(bool(value + 1 >> place & 1), _EVEN)
    return number - 1


class _Encoder:
    """Binary arithmetic coding: an interval of whole numbers that gets finer. Python's own numbers carry."""

    def __init__(self) -> None:
        self._low, self._span, self._length = 0, 1 << 32, 4

    def bit(self, value: bool, zero: int) -> bool:
        """Put a bit that is zero with a probability in 1/65536."""
        bound = (self._span >> 16) * zero
        self._low += bound if value else 0
        self._span = self._span - bound if value else bound
        while self._span < 1 << 24:
            self._low <<= 8
            self._span <<= 8
            self._length += 1
        return value

    def finish(self) -> bytes:
        """The number of the interval that ends in most zeros, which are not sent."""
        if not self._low:
            return b""
        last = self._low + self._span - 1
        zeros = 0
        while (last >> zeros + 1) << zeros + 1 >= self._low:
            zeros += 1
        return ((last >> zeros) << zeros).to_bytes(self._length, "big").rstrip(b"\0")


class _Decoder:
    """The inverse; beyond the end there are zeros."""

    def __init__(self, code: bytes) -> None:
        self._code, self._place, self._span = code, 4, 1 << 32
        self._value = int.from_bytes(code[:4].ljust(4, b"\0"), "big")

    def bit(self, value: bool, zero: int) -> bool:
        """Get a bit."""
        bound = (self._span >> 16) * zero
        value = self._value >= bound
        self._value -= bound if value else 0
        self._span = self._span - bound if value else bound
        while self._span < 1 << 24:
            self._value = self._value << 8 | (self._code[self._place] if self._place < len(self._code) else 0)
            self._span <<= 8
            self._place += 1
        return value

    def check_done(self) -> None:
        if self._place < len(self._code):
            raise BitstreamError(f"{len(self._code) - self._place} bytes follow the last coefficient")
