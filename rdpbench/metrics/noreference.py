"""No-reference scores by pyiqa: what networks, and NIQE's statistics, think of a reconstruction without its original.

NIQE (Mittal et al., SPL 2013), MUSIQ (Ke et al., ICCV 2021), CLIP-IQA+ (Wang et al., AAAI 2023), MANIQA (Yang et al.,
CVPRW 2022) and TOPIQ-NR (Chen et al., TIP 2024), each with the weights that pyiqa takes by default, trained on
KonIQ-10k (NIQE has parameters of its own). A score says nothing of the original: a codec may score above it. So the
score of the original always stands beside it, as ``NAME/originals``, and costs one evaluation for each original.

The computation is pyiqa's own, which is under PolyForm-Noncommercial: set ``RDPBENCH_ACCEPT=pyiqa`` to agree. What it
would download by itself, unchecked, comes through weight cards here, read without running code; CLIP's RN50 from a
conversion to safetensors, since OpenAI's file is a TorchScript program. One image at a time, float32: in batches
pyiqa's values change (its issue 178).

Its wheel asks for a hundred packages, among them an OpenCV with windows, which overwrites the one without: it is
installed alone, beside what these scores import.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np

from rdpbench.assets.load import match
from rdpbench.assets.weights import Card, Weights
from rdpbench.errors import CodecError, MetricError
from rdpbench.image import Image
from rdpbench.lazy import torch
from rdpbench.metrics.contract import PairMetric, Prepared, WithNetwork, by_name, check_original, check_pair, variant
from rdpbench.needs import Licence, Package
from rdpbench.networks.precision import exact, switched


@dataclass(frozen=True)
class Pyiqa(Package):
    """The package, which must be installed without what it asks for."""

    name: str = "pyiqa"

    def missing(self) -> str | None:
        told = super().missing()
        how = "pip install 'rdpbench[iqa]' && pip install --no-deps pyiqa==0.1.16 facexlib==0.3.0 filterpy openai-clip"
        return told and f"Python package 'pyiqa' is not installed; type: {how}"


def _card(id_: str, file: str, note: str) -> Card:
    address = f"https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/{file}"
    return Card(
        id_, address, "main", file, "PolyForm-Noncommercial-1.0.0 is pyiqa's; the weights state none of their own", note
    )


NIQE_CARD = _card("niqe", "niqe_modelparameters.mat", "NIQE, mean and covariance of pristine photographs")
MUSIQ_CARD = _card("musiq-koniq", "musiq_koniq_ckpt-e95806b9.pth", "MUSIQ trained on KonIQ-10k")
MANIQA_CARD = _card("maniqa-koniq", "ckpt_koniq10k.pt", "MANIQA trained on KonIQ-10k")
TOPIQ_CARD = _card("topiq-nr-koniq", "cfanet_nr_koniq_res50-9a73138b.pth", "TOPIQ-NR (ResNet-50) trained on KonIQ-10k")
PROMPTS = _card("clipiqa-plus", "CLIP-IQA+_learned_prompts-603f3273.pth", "CLIP-IQA+, the two learned prompts")
RN50 = Card(
    "resnet50-clip",
    "https://huggingface.co/timm/resnet50_clip.openai/resolve/main/open_clip_model.safetensors",
    "main",
    "open_clip_model.safetensors",
    "OpenAI's code is MIT; the model page states no licence of its own",
    "CLIP RN50, the network of CLIP-IQA+",
)


@dataclass(frozen=True)
class Preset:
    """Where a score is in pyiqa, and what it is made of."""

    module: str
    """Of ``pyiqa.archs``."""
    cls: str
    cards: tuple[Card, ...]
    source: str
    minimum_side: int
    options: Mapping[str, Any] = field(default_factory=dict)
    higher_is_better: bool = True
    bounds: tuple[float, float] = (-math.inf, math.inf)


# Sides below these leave a network without a value, or make pyiqa enlarge the image.
PRESETS = {
    "niqe": Preset("niqe", "NIQE", (NIQE_CARD,), "Mittal et al., SPL 2013", 192, {}, False, (0.0, math.inf)),
    "musiq/koniq": Preset("musiq", "MUSIQ", (MUSIQ_CARD,), "Ke et al., ICCV 2021", 32, {"pretrained": False}),
    "clip-iqa+": Preset(
        "clipiqa",
        "CLIPIQA",
        (RN50, PROMPTS),
        "Wang et al., AAAI 2023",
        32,
        {"model_type": "clipiqa+", "pretrained": False},
        bounds=(0.0, 1.0),
    ),
    "maniqa/koniq": Preset(
        "maniqa", "MANIQA", (MANIQA_CARD,), "Yang et al., CVPRW 2022", 225, {"pretrained": False, "scale": 0.8}
    ),
    "topiq-nr/koniq": Preset(
        "topiq",
        "CFANet",
        (TOPIQ_CARD,),
        "Chen et al., TIP 2024",
        32,
        {"use_ref": False, "pretrained": False, "backbone_pretrain": False},
    ),
}


def build(preset: Preset, *files: Any) -> Any:
    """pyiqa's module with the tensors of the preset's files, and nothing that it would download.

    Args:
        preset: which.
        files: tensors by name; CLIP-IQA+ takes those of CLIP and then the prompts ``(2, 16, 512)``; NIQE the path of a
            ``.mat`` file.

    Raises:
        MetricError: a tensor is missing, left over or of another shape.
    """
    module = importlib.import_module(f"pyiqa.archs.{preset.module}_arch")
    cls, options = getattr(module, preset.cls), dict(preset.options)
    if preset.module == "niqe":
        return cls(pretrained_model_path=str(files[0])).eval()
    if preset.module == "clipiqa":
        clip, prompts = files
        clip_module = importlib.import_module("pyiqa.archs.clip_model")
        with switched((module, "load", lambda *_: clip_module.build_model(dict(clip)).float())):
            network = cls(**options)
        if prompts.shape != network.prompt_learner.ctx.shape:
            raise MetricError(
                f"the prompts are {tuple(prompts.shape)} instead of {tuple(network.prompt_learner.ctx.shape)}"
            )
        network.prompt_learner.ctx.data = prompts.float()
        return network.eval().requires_grad_(False)
    timm = importlib.import_module("timm")
    bare: Callable[..., Any] = partial(_without_weights, timm.create_model)
    with switched((timm, "create_model", bare)):
        network = cls(**options)
    try:
        tensors, _ = match(network, files[0], f"the weights of {preset.cls}")
    except CodecError as error:
        raise MetricError(str(error)) from error
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=True)
    return network.eval().requires_grad_(False)


def _without_weights(create: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """timm's ``create_model``, which MANIQA asks for weights that its own file replaces."""
    return create(*given, **{**options, "pretrained": False})


class NoReference(WithNetwork[Any], PairMetric):
    """A no-reference score of the reconstruction; ``given`` is what `build` takes, as a tuple."""

    preload = ("torch", "pyiqa")
    preset: ClassVar[Preset]
    beside_it: ClassVar[str]
    """The metric that scores the originals, which a run takes with this one."""

    def load(self, given: tuple[Any, ...] | None) -> Any:
        if given is None:
            cards = map(Weights, self.preset.cards)
            given = tuple(card.path if self.preset.module == "niqe" else card.read() for card in cards)
        network = build(self.preset, *given).to(self.device)
        for clip in getattr(network, "clip_model", ()):  # kept in a list, out of the module's reach
            clip.to(self.device).requires_grad_(False)
        return network

    def value(self, image: Image) -> float:
        """The score of one image. Raises `MetricError` where it has none, such as NIQE of a flat image."""
        pixels = torch.tensor(np.ascontiguousarray(image), device=self.device).permute(2, 0, 1)[None].float() / 255
        with warnings.catch_warnings(), torch.inference_mode(), exact():
            warnings.simplefilter("ignore", UserWarning)  # of statistics of nothing, told below
            try:
                value = float(self.network(pixels))
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                value = math.nan
        if not math.isfinite(value):
            raise MetricError(f"{self.name} has no value for this image: nothing in it varies")
        return value

    def prepare(self, original: Image) -> Prepared[float | None]:
        """Nothing of it counts but its size. Raises `MetricError` for a side that is too short."""
        return Prepared(check_original(original, self.name, self.preset.minimum_side), None)

    def score(self, prepared: Prepared[float | None], reconstruction: Image) -> float:
        return self.value(check_pair(prepared.original, reconstruction, self.name))


class OfOriginals(NoReference):
    """The score of the original, whatever the reconstruction."""

    perceptual = False

    def prepare(self, original: Image) -> Prepared[float | None]:
        """Its score."""
        return Prepared(original, self.value(super().prepare(original).original))

    def score(self, prepared: Prepared[float | None], reconstruction: Image) -> float:
        check_pair(prepared.original, reconstruction, self.name)
        assert prepared.content is not None
        return prepared.content


def _metrics(name: str, preset: Preset) -> list[type[NoReference]]:
    licence = Licence("pyiqa", "PolyForm-Noncommercial-1.0.0", "https://github.com/chaofengc/IQA-PyTorch")
    data = {
        "preset": preset,
        "higher_is_better": preset.higher_is_better,
        "bounds": preset.bounds,
        "source": f"{preset.source}, by pyiqa; non-commercial",
        "needs": (licence, Pyiqa(), *map(Weights, preset.cards)),
    }
    beside = variant(OfOriginals, f"{name}/originals", beside_it="", **data)
    return [variant(NoReference, name, beside_it=beside.name, **data), beside]


METRICS = by_name(*(metric for name, preset in PRESETS.items() for metric in _metrics(name, preset)))
