"""LPIPS v0.1 (Zhang et al., "The unreasonable effectiveness of deep features", CVPR 2018): alex, vgg and squeeze.

The networks are the ``lpips`` package's own, with the linear heads that lie in its wheel. The trunks do not lie there:
they come through weight cards, checked, instead of the package's unverified download. Images enter as 8 bits at full
size and are scaled to [-1, 1] here, so that the most frequent mistake with LPIPS, values of [0, 1], cannot be made.

TACO's released script makes that mistake. Its number has a name of its own, ``lpips/taco-script``, to repeat that
script's tables; it is several times lower than LPIPS and comparable with no other paper's.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from rdpbench.assets.load import load_strictly
from rdpbench.assets.weights import CARDS, Card, Weights, read_installed, read_tensors, torchvision_card
from rdpbench.errors import MetricError
from rdpbench.image import Image
from rdpbench.lazy import Tensor, torch
from rdpbench.metrics.contract import ComparingMetric, WithNetwork, by_name, variant
from rdpbench.needs import Package
from rdpbench.networks.precision import exact

Net: TypeAlias = Literal["alex", "vgg", "squeeze"]

HEADS = {
    "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "squeeze": "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
}
"""sha256 of the linear heads v0.1 in the wheel of lpips 0.1.4."""

SQUEEZENET = torchvision_card(
    "squeezenet1.1-imagenet",
    "squeezenet1_1-b8a52dc0.pth",
    "SqueezeNet1_1_Weights.IMAGENET1K_V1",
    "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    4958839,
    "SqueezeNet 1.1, the trunk of LPIPS (squeeze)",
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

    heads = read_installed("lpips", f"weights/v0.1/{net}.pth", HEADS[net], "linear heads than LPIPS v0.1")
    # On the meta device nothing is allocated and no random number is drawn, which for VGG16 would take seconds.
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.filterwarnings("ignore", "The parameter 'pretrained' is deprecated", UserWarning)
        warnings.filterwarnings("ignore", "Arguments other than a weight enum", UserWarning)
        model = lpips.LPIPS(pretrained=False, net=net, pnet_rand=True, verbose=False)

    wanted = model.state_dict()
    # net.slice2.3.weight is the trunk's features.3.weight.
    names = {f"features.{name.split('.', 2)[2]}": name for name in wanted if name.startswith("net.")}
    given = {names.get(name, name): tensor for name, tensor in trunk.items()}
    given |= {name: tensor for name, tensor in wanted.items() if name.startswith("scaling_layer.")}
    for name, tensor in heads.items():
        # The module holds each head twice, as lin0 and as lins.0.
        given[name] = given[f"lins.{name.removeprefix('lin')}"] = tensor
    return load_strictly(lambda: model, given, f"the trunk of lpips/{net}", drop=("classifier.*",), error=MetricError)


class LPIPS(WithNetwork[Any], ComparingMetric["tuple[Tensor, ...]"]):
    """LPIPS of 8-bit RGB at full size, 0 for identical images; ``given`` is a state dict of torchvision's network."""

    source = "Zhang et al., CVPR 2018, v0.1; full size, RGB"
    preload = ("torch", "lpips")
    net: ClassVar[Net]
    lowest: ClassVar[float] = -1.0
    """What the value 0 of a pixel becomes for the network; 255 becomes 1."""

    def load(self, given: Mapping[str, Tensor] | None) -> Any:
        weights = self.needs[1]
        assert isinstance(weights, Weights)
        return build(self.net, read_tensors(weights.card) if given is None else given).to(self.device)

    def compare(self, original: tuple[Tensor, ...], reconstruction: tuple[Tensor, ...]) -> float:
        with torch.inference_mode(), exact():
            layers = zip(self.network.lins, original, reconstruction, strict=True)
            return sum(float(head((first - second) ** 2).mean()) for head, first, second in layers)

    def compute(self, image: Image) -> tuple[Tensor, ...]:
        """Normalised features: 16 MB (alex), 54 MB (squeeze) or 190 MB (vgg) for 512 x 768."""
        import lpips

        with torch.inference_mode(), exact():
            pixels = torch.tensor(np.ascontiguousarray(image), device=self.device).permute(2, 0, 1)[None]
            planes = pixels / (255 / (1 - self.lowest)) + self.lowest
            layers = self.network.net(self.network.scaling_layer(planes))
            return tuple(lpips.normalize_tensor(layer) for layer in layers)


def _lpips(net: Net, minimum_side: int, card: Card) -> type[LPIPS]:
    return variant(LPIPS, f"lpips/{net}", net=net, minimum_side=minimum_side, needs=(Package("lpips"), Weights(card)))


# AlexNet is what compression papers report. VGG16 is mostly a training loss: models trained with it score well on it.
LPIPSAlex = _lpips("alex", 31, CARDS["alexnet-imagenet"])
LPIPSVGG = _lpips("vgg", 16, CARDS["vgg16-imagenet"])
LPIPSSqueeze = _lpips("squeeze", 17, SQUEEZENET)
TACOScript = variant(
    LPIPSAlex,
    "lpips/taco-script",
    source="TACO's released script: LPIPS alex v0.1 on [0, 1] instead of [-1, 1]; not comparable",
    lowest=0.0,
)

METRICS = by_name(LPIPSAlex, LPIPSVGG, LPIPSSqueeze, TACOScript)
