"""LPIPS v0.1 (Zhang et al., "The unreasonable effectiveness of deep features", CVPR 2018): alex, vgg and squeeze.

The networks are the ``lpips`` package's own, with the linear heads that lie in its wheel. The trunks do not lie there:
they come through weight cards, checked, instead of the package's unverified download. Images enter as 8 bits at full
size and are scaled to [-1, 1] here, so that the most frequent mistake with LPIPS, values of [0, 1], cannot be made.

TACO's released script makes that mistake. Its number has a name of its own, ``lpips/taco-script``, to repeat that
script's tables; it is several times lower than LPIPS and comparable with no other paper's.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np

from rdpbench.assets.weights import CARDS, Card, Weights, read_tensors
from rdpbench.errors import MetricError
from rdpbench.image import Image
from rdpbench.metrics import contract
from rdpbench.metrics.contract import check_original, check_pair
from rdpbench.needs import Need, Package
from rdpbench.networks.precision import exact

if TYPE_CHECKING:
    from torch import Tensor

Net: TypeAlias = Literal["alex", "vgg", "squeeze"]

HEADS = {
    "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "squeeze": "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
}
"""sha256 of the linear heads v0.1 in the wheel of lpips 0.1.4."""

SQUEEZENET = Card(
    id="squeezenet1.1-imagenet",
    source="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
    revision="torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1",
    file="squeezenet1_1-b8a52dc0.pth",
    sha256="b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    bytes=4958839,
    licence="torchvision is BSD-3-Clause; the weights state no licence of their own",
    note="SqueezeNet 1.1, the trunk of LPIPS (squeeze)",
)


def build(net: Net, trunk: Mapping[str, Tensor]) -> Any:
    """The ``lpips.LPIPS`` module with the wheel's linear heads and the given trunk, in evaluation mode on the CPU.

    Args:
        net: ``alex``, ``vgg`` or ``squeeze``.
        trunk: a state dict of torchvision's network: every ``features.*`` is used, ``classifier.*`` is dropped.

    Raises:
        MetricError: a tensor is missing, left over or of another shape; or the wheel's heads are not those of v0.1.
    """
    import lpips
    import torch

    heads_file = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    found = hashlib.sha256(heads_file.read_bytes()).hexdigest()
    if found != HEADS[net]:
        raise MetricError(f"{heads_file} holds other linear heads than LPIPS v0.1: sha256 {found}, not {HEADS[net]}")
    # On the meta device nothing is allocated and no random number is drawn, which for VGG16 would take seconds.
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.filterwarnings("ignore", "The parameter 'pretrained' is deprecated", UserWarning)
        warnings.filterwarnings("ignore", "Arguments other than a weight enum", UserWarning)
        model = lpips.LPIPS(pretrained=False, net=net, pnet_rand=True, verbose=False)

    wanted = model.state_dict()
    given = {name: tensor for name, tensor in wanted.items() if name.startswith("scaling_layer.")}
    for name, tensor in torch.load(heads_file, map_location="cpu", weights_only=True).items():
        # The module holds each head twice, as lin0 and as lins.0.
        given[name] = given[f"lins.{name.removeprefix('lin')}"] = tensor
    for name in wanted:
        if name.startswith("net."):
            # net.slice2.3.weight is the trunk's features.3.weight.
            source = f"features.{name.split('.', 2)[2]}"
            if source not in trunk:
                raise MetricError(f"the trunk of lpips/{net} lacks {source}")
            given[name] = trunk[source]
    used = {f"features.{name.split('.', 2)[2]}" for name in wanted if name.startswith("net.")}
    if left := sorted(name for name in trunk if name not in used and not name.startswith("classifier.")):
        raise MetricError(f"the trunk of lpips/{net} holds what the network has no place for: {', '.join(left)}")
    try:
        model.load_state_dict(given, strict=True, assign=True)
    except RuntimeError as error:
        raise MetricError(f"the trunk of lpips/{net} does not fit: {error}") from error
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Prepared:
    """The original with its normalised features: 16 MB (alex), 54 MB (squeeze) or 190 MB (vgg) for 512 x 768."""

    original: Image
    features: tuple[Tensor, ...]


class _LPIPS:
    """What all networks share; the network is loaded at the first image."""

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    higher_is_better: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    unit: ClassVar[str] = ""
    perceptual: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True
    source: ClassVar[str] = "Zhang et al., CVPR 2018, v0.1; full size, RGB"
    needs: ClassVar[tuple[Need, ...]]
    preload: ClassVar[tuple[str, ...]] = ("torch", "lpips")
    """Imported once, in the fork server, for all workers."""
    net: ClassVar[Net]
    minimum_side: ClassVar[int]
    lowest: ClassVar[float] = -1.0
    """What the value 0 of a pixel becomes for the network; 255 becomes 1."""

    def __init__(self, trunk: Mapping[str, Tensor] | None = None, device: str = "cpu") -> None:
        """Take the card's trunk, or the given state dict of torchvision's network in its place."""
        self._trunk = trunk
        self._device = device
        self._model: Any = None

    def prepare(self, original: Image) -> Prepared:
        """Features of the original.

        Raises:
            MetricError: not ``uint8 (H, W, 3)``, or smaller than the network takes (`minimum_side`).
            MissingNeed: the trunk's weights are not on this machine.
        """
        check_original(original, self.name, self.minimum_side)
        return Prepared(original, self._features(original))

    def score(self, prepared: Prepared, reconstruction: Image) -> float:
        """LPIPS of the pair, 0 for identical images. Raises `MetricError` for another size or type."""
        import torch

        check_pair(prepared.original, reconstruction, self.name)
        with torch.inference_mode(), exact():
            features = self._features(reconstruction)
            layers = zip(self._model.lins, prepared.features, features, strict=True)
            return sum(float(head((first - second) ** 2).mean()) for head, first, second in layers)

    def reduce(self, values: Sequence[float]) -> float:
        """Mean over images."""
        return contract.mean(values)

    def _features(self, image: Image) -> tuple[Tensor, ...]:
        import lpips
        import torch

        if self._model is None:
            weights = self.needs[1]
            assert isinstance(weights, Weights)
            trunk = self._trunk if self._trunk is not None else read_tensors(weights.card)
            self._model = build(self.net, trunk).to(self._device)
        with torch.inference_mode(), exact():
            pixels = torch.tensor(np.ascontiguousarray(image), device=self._device).permute(2, 0, 1)[None]
            planes = pixels / (255 / (1 - self.lowest)) + self.lowest
            layers = self._model.net(self._model.scaling_layer(planes))
            return tuple(lpips.normalize_tensor(layer) for layer in layers)


class LPIPSAlex(_LPIPS):
    """LPIPS with AlexNet, what compression papers report.

    >>> LPIPSAlex().minimum_side
    31
    """

    name: ClassVar[str] = "lpips/alex"
    net: ClassVar[Net] = "alex"
    minimum_side: ClassVar[int] = 31
    needs: ClassVar[tuple[Need, ...]] = (Package("lpips"), Weights(CARDS["alexnet-imagenet"]))


class LPIPSVGG(_LPIPS):
    """LPIPS with VGG16, mostly used as a training loss: models trained with it score well on it.

    >>> LPIPSVGG().minimum_side
    16
    """

    name: ClassVar[str] = "lpips/vgg"
    net: ClassVar[Net] = "vgg"
    minimum_side: ClassVar[int] = 16
    needs: ClassVar[tuple[Need, ...]] = (Package("lpips"), Weights(CARDS["vgg16-imagenet"]))


class LPIPSSqueeze(_LPIPS):
    """LPIPS with SqueezeNet 1.1, the smallest of the three; it has seven layers where the others have five.

    >>> LPIPSSqueeze().minimum_side
    17
    """

    name: ClassVar[str] = "lpips/squeeze"
    net: ClassVar[Net] = "squeeze"
    minimum_side: ClassVar[int] = 17
    needs: ClassVar[tuple[Need, ...]] = (Package("lpips"), Weights(SQUEEZENET))


class TACOScript(LPIPSAlex):
    """What the script that TACO's authors released prints as LPIPS: alex, fed with values of [0, 1].

    Every pair scores lower than by `LPIPSAlex`; to be read beside that script's numbers only.

    >>> TACOScript().lowest
    0.0
    """

    name: ClassVar[str] = "lpips/taco-script"
    source: ClassVar[str] = "TACO's released script: LPIPS alex v0.1 on [0, 1] instead of [-1, 1]; not comparable"
    lowest: ClassVar[float] = 0.0
