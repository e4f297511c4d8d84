"""Networks that name the class of each pixel, from ``transformers``: the semantic map of an image, for mIoU.

A network gives masks and, for each, the odds of the classes; a pixel's score for a class is the sum over masks of odds
times mask. Scores, not classes, are enlarged to the image's size (bilinear), and the largest wins.

EoMT sees the image inside a square of 640 x 640: the long side resized to it, the rest black. The square's content, and
not the whole square, is what is enlarged. ``post_process_semantic_segmentation`` of transformers 5 takes the whole for
these networks: every image that is not square gets a squeezed map, and a low mIoU. For square images both agree.

Images pass one at a time, so that no map depends on its neighbours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.load import load_pretrained
from rdpbench.assets.weights import CardFolder, resolve
from rdpbench.errors import MetricError
from rdpbench.image import Image, check_image
from rdpbench.lazy import Tensor, functional, torch
from rdpbench.networks.precision import exact

Classes: TypeAlias = Literal["coco-panoptic-133", "coco-stuff-171"]
Kind: TypeAlias = Literal["eomt", "maskformer"]

NAMES: dict[Classes, dict[int, str]] = {
    "coco-panoptic-133": {0: "person", 80: "banner", 132: "rug"},
    "coco-stuff-171": {0: "person", 80: "banner", 170: "wood"},
}
"""First, first after the things, and last class of each list: a model that names its classes must agree."""


@dataclass(frozen=True)
class Model:
    """A published network."""

    card: CardFolder
    kind: Kind
    classes: Classes
    side: int = 0
    """Of the square that the network sees; 0 where ``preprocessor_config.json`` says it."""


def _model(kind: Kind, classes: Classes, name: str, licence: str, note: str, *more: str, side: int = 0) -> Model:
    files = tuple((file, 0, None) for file in ("config.json", "model.safetensors", *more))
    card = CardFolder(name.partition("/")[2], f"https://huggingface.co/{name}", "main", files, licence, note)
    return Model(card, kind, classes, side)


EOMT_LARGE = _model(
    "eomt",
    "coco-panoptic-133",
    "tue-mps/coco_panoptic_eomt_large_640",
    "MIT",
    "EoMT (DINOv2 ViT-L) for COCO panoptic, 133 classes",
    side=640,
)
EOMT_SMALL = _model(
    "eomt",
    "coco-panoptic-133",
    "tue-mps/coco_panoptic_eomt_small_640_2x",
    "MIT",
    "EoMT (DINOv2 ViT-S) for COCO panoptic, 133 classes: quick trials",
    side=640,
)
MASKFORMER_STUFF = _model(
    "maskformer",
    "coco-stuff-171",
    "facebook/maskformer-resnet101-coco-stuff",
    "the page states none",
    "MaskFormer (ResNet-101) for COCO-Stuff, 171 classes",
    "preprocessor_config.json",
)


class Segmenter:
    """A network on a device, with what comes before and after it."""

    def __init__(self, network: Any, processor: Any, device: str = "cpu") -> None:
        """Take ``EomtForUniversalSegmentation`` or ``MaskFormerForInstanceSegmentation`` and its image processor."""
        self.network = network.to(device).eval().requires_grad_(False)
        self.processor = processor
        self.device = device
        self.classes = int(network.config.num_labels)

    def predict(self, image: Image) -> NDArray[np.int64]:
        """The class index of each pixel, ``(H, W)``.

        Raises:
            MetricError: the image is not ``uint8 (H, W, 3)``: the processor would rescale floats a second time.
        """
        check_image(image, "segmentation: the image", MetricError)
        with torch.inference_mode(), exact():
            planes = torch.from_numpy(np.array(image.transpose(2, 0, 1)))  # a copy: images may be read-only
            prepared = self.processor(images=planes, return_tensors="pt", device=self.device)
            scores = self._scores(self.network(prepared["pixel_values"].to(self.device)), image.shape[:2])
            return scores.argmax(dim=0).cpu().numpy()

    def _scores(self, output: Any, size: tuple[int, ...]) -> Tensor:
        """Of each class at each pixel of the image, ``(classes, H, W)``."""
        odds = output.class_queries_logits[0].softmax(dim=-1)[:, :-1]  # the last is "no object"
        masks = output.masks_queries_logits
        if self.network.config.model_type == "eomt":
            side = self.processor.size["shortest_edge"]
            masks = functional.interpolate(masks, (side, side), mode="bilinear")
            height, width = content(size[0], size[1], side)
            masks = masks[:, :, :height, :width]
        scores = torch.einsum("qc,qhw->chw", odds, masks[0].sigmoid())
        return functional.interpolate(scores[None], (size[0], size[1]), mode="bilinear", align_corners=False)[0]


def content(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of an image resized into a square, the long side filling it; as transformers rounds them.

    >>> content(427, 640, 640), content(500, 333, 640)
    ((427, 640), (640, 426))
    """
    from transformers.image_transforms import get_size_with_aspect_ratio

    inner_height, inner_width = get_size_with_aspect_ratio((height, width), side, side)
    return int(inner_height), int(inner_width)


def load_segmenter(model: Model, device: str = "cpu") -> Segmenter:
    """The published network from its checked files.

    Raises:
        MissingNeed: a file is not on this machine.
        MetricError: tensors are missing or left over, or the classes are not those that we count.
    """
    folder = resolve(model.card)
    network = read_network(folder, model.kind)
    check_classes(network.config, model)
    return Segmenter(network, processor_for(model, folder), device)


def read_network(folder: Path, kind: Kind) -> Any:
    """The network of a folder with ``config.json`` and ``model.safetensors``, float32, all tensors used and none made.

    Raises:
        MetricError: tensors are missing, left over or of another shape.
    """
    from transformers import EomtForUniversalSegmentation, MaskFormerForInstanceSegmentation

    cls: Any = {"eomt": EomtForUniversalSegmentation, "maskformer": MaskFormerForInstanceSegmentation}[kind]
    return load_pretrained(cls, folder, torch.float32, leftovers=False, error=MetricError)


def processor_for(model: Model, folder: Path | None = None) -> Any:
    """The image processor: EoMT's as its model page sets it, others by the file in the folder."""
    from transformers import EomtImageProcessor, MaskFormerImageProcessor

    if model.kind == "eomt":
        side = {"shortest_edge": model.side, "longest_edge": model.side}
        return EomtImageProcessor(size=side, do_split_image=False, do_pad=True)
    assert folder is not None
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    return MaskFormerImageProcessor(**{name: value for name, value in settings.items() if not name.endswith("_type")})


def check_classes(config: Any, model: Model) -> None:
    """Raises `MetricError` if the network has another number of classes, or names them in another order."""
    count = max(NAMES[model.classes]) + 1
    if config.num_labels != count:
        raise MetricError(f"{model.card.id} has {config.num_labels} classes, and {model.classes} counts {count}")
    for index, name in NAMES[model.classes].items():
        label = str(config.id2label.get(index, ""))
        if label and not label.startswith(("LABEL_", name)):
            raise MetricError(f"{model.card.id} calls class {index} {label!r}, and {model.classes} {name!r}")
