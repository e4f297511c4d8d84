"""The networks of metrics with seeded random weights, at full or at a tiny width, for `check_gpu.py`.

A builder takes a metric's name and gives a function of the device: the metric there, as a function of images, with the
same weights each time; and the module whose ``BATCH`` says how many images its network sees at once, if any does.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rdpbench import registry
from rdpbench.codecs.contract import Side
from rdpbench.image import Image

SIDE = Side(caption="a woman in an orange suit smiles in front of a flag", seed=1)
"""What encoders and captions' metrics are given."""

Use = Callable[[Sequence[Image]], Sequence[Any]]
Build = Callable[[str], Use]


def seeded(network: Any) -> Any:
    """A network with random weights that differ from another one's by their seed alone."""
    from rdpbench.codecs.diffusion.models import draw_weights

    return draw_weights(network, 3)


def pair_metric(metric: Any) -> Use:
    """Scores each image against its negative half."""

    def use(images: Sequence[Image]) -> Sequence[Any]:
        return [metric.score(metric.prepare(image), image // 2) for image in images]

    return use


def lpips(name: str, tiny: bool, folder: Path) -> tuple[Build, str]:  # noqa: ARG001 - as all builders
    """LPIPS on a random trunk."""
    import torchvision

    net = name.partition("/")[2]
    trunk = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}[net]
    tensors = seeded(
        getattr(torchvision.models, trunk)(weights=None, **({"init_weights": False} if net == "vgg" else {}))
    )
    cls: Any = registry.load("metric", name)
    return lambda device: pair_metric(cls(tensors.state_dict(), device=device)), ""


def dists(name: str, tiny: bool, folder: Path) -> tuple[Build, str]:  # noqa: ARG001 - as above
    """DISTS on a random trunk."""
    import torchvision

    tensors = seeded(torchvision.models.vgg16(weights=None, init_weights=False).features).state_dict()
    given = {f"features.{key}": tensor for key, tensor in tensors.items()}
    cls: Any = registry.load("metric", name)
    return lambda device: pair_metric(cls(given, device=device)), ""


def pieapp(name: str, tiny: bool, folder: Path) -> tuple[Build, str]:  # noqa: ARG001 - as above
    """PieAPP's layout with random tensors."""
    import torch

    from rdpbench.metrics.pieapp import SHAPES

    draws = torch.Generator().manual_seed(3)
    tensors = {}
    for key, shape in SHAPES.items():
        inputs = int(np.prod(shape[1:])) or 1
        tensors[key] = torch.randn(shape, generator=draws) * (2 / inputs) ** 0.5
    tensors["conv1.weight"] /= 20  # pixels are 0 to 255
    for key in ("fc2_weight.weight", "fc2_weight.bias"):
        tensors[key].abs_()  # weights of patches are positive
    cls: Any = registry.load("metric", name)
    return lambda device: pair_metric(cls(tensors, device=device)), ""


def fid(name: str, tiny: bool, folder: Path) -> tuple[Build, str]:  # noqa: ARG001 - as above
    """The Inception network of FID and KID."""
    from torchvision.models import inception_v3

    network = seeded(inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False))
    cls: Any = registry.load("metric", name)
    return (
        lambda device: cls.features(network.state_dict(), device=device).extract
    ), "rdpbench.metrics.inception_distances"


def clip(name: str, tiny: bool, folder: Path) -> tuple[Build, str]:
    """CLIP's towers: images for all, captions for the score."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from rdpbench.networks.clip import L14_336, SHAPES, Clip, Shape, configuration, read_tokens

    cls: Any = registry.load("metric", name)
    card = L14_336 if name == "cmmd" else cls.card
    shape = Shape(48, 2, 2, 8, 32, 32, 2, 2, 24) if tiny else SHAPES[card.id]
    table = folder / "table.txt.gz"
    table.write_bytes(gzip.compress(b"#version\na n\nan d</w>\no g</w>"))
    tokens = read_tokens(table)
    sizes = configuration(shape)
    sizes["text_config"] |= {"bos_token_id": tokens.bos_token_id, "eos_token_id": tokens.eos_token_id}
    with torch.random.fork_rng(devices=[]):
        model = seeded(CLIPModel(CLIPConfig(**sizes)))

    def build(device: str) -> Use:
        tower = Clip(deepcopy(model) if device != "cpu" else model, tokens, device)
        if name == "cmmd":
            return lambda images: cls.features(tower, device=device).extract(images)
        metric = cls(tower, device=device)
        if not name.startswith("clip-score"):
            return lambda images: [*pair_metric(metric)(images)]
        return lambda images: [metric.score(metric.prepare(one, captions=(str(SIDE.caption),)), one) for one in images]

    return build, "rdpbench.networks.clip" if name == "cmmd" else ""


def miou(name: str, tiny: bool, folder: Path) -> tuple[Build, str]:  # noqa: ARG001 - as all builders
    """The segmentation networks; the difference is that of the shares of classes."""
    from transformers import (
        DetrConfig,
        EomtConfig,
        EomtForUniversalSegmentation,
        MaskFormerConfig,
        MaskFormerForInstanceSegmentation,
        MaskFormerImageProcessor,
        ResNetConfig,
    )

    from rdpbench.networks.segmentation import Segmenter, processor_for

    cls: Any = registry.load("metric", name).features  # type: ignore[attr-defined]
    network: Any
    if cls.model.kind == "eomt":
        model = replace(cls.model, side=64) if tiny else cls.model
        sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6} if "small" in name else {}
        sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4} if tiny else sizes
        network = EomtForUniversalSegmentation(
            EomtConfig(image_size=model.side, patch_size=16, num_labels=cls.dim, num_blocks=2 if tiny else 4, **sizes)
        )
        processor = processor_for(model)
    else:
        stages = ["stage1", "stage2", "stage3", "stage4"]
        narrow = {"embedding_size": 16, "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]}
        backbone = ResNetConfig(out_features=stages, **(narrow if tiny else {"depths": [3, 4, 23, 3]}))
        network = MaskFormerForInstanceSegmentation(
            MaskFormerConfig(backbone_config=backbone, decoder_config=DetrConfig(), num_labels=cls.dim)
        )
        processor = MaskFormerImageProcessor(size={"shortest_edge": 640, "longest_edge": 2560})
    network = seeded(network)

    def build(device: str) -> Use:
        segmenter = Segmenter(deepcopy(network), processor, device)

        def use(images: Sequence[Image]) -> Sequence[Any]:
            maps = [segmenter.predict(image) for image in images]
            return [np.bincount(one.ravel(), minlength=cls.dim) / one.size for one in maps]

        return use

    return build, ""


BUILDERS: dict[str, Callable[[str, bool, Path], tuple[Build, str]]] = {
    "lpips": lpips, "dists": dists, "pieapp": pieapp, "fid": fid, "clip-i": clip, "clip-score": clip, "dclip": clip,
    "cmmd": clip, "miou": miou,
}  # fmt: skip
