"""Segmentation against transformers' own processing, and mIoU from one confusion matrix of the set."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rdpbench import registry
from rdpbench.errors import MetricError
from rdpbench.metrics import miou
from rdpbench.metrics.contract import Features, SetMetric
from rdpbench.networks import segmentation
from rdpbench.networks.segmentation import EOMT_LARGE, MASKFORMER_STUFF, Model, Segmenter

SIDE = 64
SMALL = Model(EOMT_LARGE.card, "eomt", "coco-panoptic-133", side=SIDE)


def spread(network, seed=1):
    """Seeded random weights, large enough that queries and pixels differ: a map of one class would prove nothing."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if tensor.ndim > 1:
                inputs = 1 if "quer" in name else np.prod(tensor.shape[1:])
                tensor.copy_(1.5 * torch.randn(tensor.shape, generator=generator) / inputs**0.5)
            elif "lambda" in name:
                tensor.fill_(1)
        network.class_predictor.weight.mul_(5)
    return network.eval()


@pytest.fixture(scope="module")
def eomt():
    """The real class at small sizes, 133 classes."""
    from transformers import EomtConfig, EomtForUniversalSegmentation

    config = EomtConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, image_size=SIDE, patch_size=16, num_queries=20,
        num_blocks=2, num_upscale_blocks=2, num_labels=133,
    )  # fmt: skip
    return spread(EomtForUniversalSegmentation(config))


@pytest.fixture(scope="module")
def segmenter(eomt):
    return Segmenter(eomt, segmentation.processor_for(SMALL))


@pytest.fixture(scope="module")
def maskformer():
    from transformers import DetrConfig, MaskFormerConfig, MaskFormerForInstanceSegmentation, ResNetConfig

    config = MaskFormerConfig(
        fpn_feature_size=32,
        mask_feature_size=32,
        backbone_config=ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 16, 32, 32], depths=[1, 1, 1, 1],
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        decoder_config=DetrConfig(
            d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32,
            encoder_attention_heads=2, decoder_attention_heads=2, num_queries=12,
        ),
        num_labels=171,
    )  # fmt: skip
    return spread(MaskFormerForInstanceSegmentation(config))


def theirs(network, processor, image):
    """transformers' processor, network and scores, before the last resize."""
    import torch

    prepared = processor(images=image, return_tensors="pt")
    with torch.no_grad():
        return network(pixel_values=prepared["pixel_values"])


@pytest.mark.parametrize("side", [64, 40, 130])
def test_a_square_image_is_as_in_transformers(segmenter, eomt, photograph, side):
    """Equal, pixel by pixel but for ties, to its post_process_semantic_segmentation."""
    image = photograph[:side, 100 : 100 + side]
    found = segmenter.predict(image)
    outputs = theirs(eomt, segmenter.processor, image)
    [expected] = segmenter.processor.post_process_semantic_segmentation(outputs, [(side, side)])
    # Sums of several threads differ in the last digit, and where two classes score the same it decides.
    assert np.count_nonzero(found != expected.numpy()) <= 2
    assert len(np.unique(found)) > 3


@pytest.mark.parametrize("size", [(48, 96), (120, 70)])
def test_an_image_that_is_not_square_leaves_the_padding_out(segmenter, eomt, photograph, size):
    """As transformers does for panoptic maps (unpad_image), and not as it does for semantic ones: it is squeezed."""
    import torch

    image = photograph[: size[0], 100 : 100 + size[1]]
    found = segmenter.predict(image)
    outputs = theirs(eomt, segmenter.processor, image)
    masks = torch.nn.functional.interpolate(outputs.masks_queries_logits, (SIDE, SIDE), mode="bilinear").sigmoid()
    scores = torch.einsum("bqc,bqhw->bchw", outputs.class_queries_logits.softmax(-1)[..., :-1], masks)
    expected = segmenter.processor.unpad_image(scores, [size], segmenter.processor.size)[0].argmax(0).numpy()
    assert found.shape == size
    assert np.mean(found == expected) > 0.999
    [squeezed] = segmenter.processor.post_process_semantic_segmentation(outputs, [size])
    assert np.mean(squeezed.numpy() == expected) < 0.9


def test_maskformer_is_as_in_transformers(maskformer, photograph):
    from transformers import MaskFormerImageProcessor

    processor = MaskFormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 120}, size_divisor=32)
    for image in (photograph[:80, :80], photograph[:60, 200:300]):
        found = Segmenter(maskformer, processor).predict(image)
        outputs = theirs(maskformer, processor, image)
        [expected] = processor.post_process_semantic_segmentation(outputs, [image.shape[:2]])
        assert np.mean(found == expected.numpy()) > 0.999
        assert found.shape == image.shape[:2]
        assert len(np.unique(found)) >= 3


def test_only_bytes_are_taken(segmenter, photograph):
    """Given values of [0, 1], the processor would rescale them again and the network see black."""
    with pytest.raises(MetricError, match="must be uint8"):
        segmenter.predict((photograph[:64, :64] / 255).astype(np.float32))
    flipped = photograph[:64, 64:0:-1]
    flipped.flags.writeable = False
    assert np.array_equal(segmenter.predict(flipped), segmenter.predict(flipped.copy()))


@pytest.fixture
def folder(eomt, tmp_path):
    eomt.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_network_from_its_files(folder, segmenter, photograph):
    """config.json and model.safetensors, every tensor used and none made."""
    network = segmentation.read_network(folder, "eomt")
    segmentation.check_classes(network.config, EOMT_LARGE)
    again = Segmenter(network, segmentation.processor_for(SMALL))
    image = photograph[:64, :64]
    assert np.array_equal(again.predict(image), segmenter.predict(image))


@pytest.mark.parametrize("change", ["missing", "left over", "shape"])
def test_tensors_that_do_not_fit(folder, change):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    name = "class_predictor.weight"
    if change == "missing":
        del tensors[name]
    elif change == "left over":
        tensors["more.weight"] = tensors[name].clone()
    else:
        tensors[name] = tensors[name][:, :5].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MetricError, match=r"class_predictor\.weight|more\.weight|size"):
        segmentation.read_network(folder, "eomt")


def test_classes_in_another_order(folder):
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(index): "person" if index == 0 else f"x{index}" for index in range(133)}
    config["label2id"] = {name: int(index) for index, name in config["id2label"].items()}
    (folder / "config.json").write_text(json.dumps(config))
    network = segmentation.read_network(folder, "eomt")
    with pytest.raises(MetricError, match=r"calls class 80 'x80', and coco-panoptic-133 'banner'"):
        segmentation.check_classes(network.config, EOMT_LARGE)
    with pytest.raises(MetricError, match="has 133 classes, and coco-stuff-171 counts 171"):
        segmentation.check_classes(network.config, MASKFORMER_STUFF)


class Fixed:
    """A network whose predictions are known: what follows it is measured."""

    def __init__(self, *maps):
        self.maps = iter(maps)

    def predict(self, image):
        return next(self.maps)


class ThreeCounts(miou.METRICS["miou/eomt-large"].features):
    dim = 3


class Three(miou.METRICS["miou/eomt-large"]):
    features = ThreeCounts


T_A, P_A = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], np.uint8), np.array([[0, 0, 1, 1], [0, 1, 1, 0]])
T_B, P_B = np.array([[2, 2, 2, 2], [0, 0, 0, 0]], np.uint8), np.array([[2, 2, 0, 0], [0, 0, 0, 0]])
EMPTY = np.zeros((2, 4, 3), np.uint8)


def counts(*pairs):
    features = ThreeCounts(Fixed(*(prediction for _, prediction in pairs)))
    return features.extract([EMPTY] * len(pairs), labels=[truth for truth, _ in pairs])


def test_the_dossiers_value():
    """IoU .70, .75, .50; not .6288 (255 counted as an error), not .6667 (mean of the images' mIoU)."""
    found = Three().reduce(counts((T_A, T_A % 255), (T_B, T_B)), counts((T_A, P_A), (T_B, P_B)))
    assert found.value == pytest.approx(0.65, abs=1e-12)
    assert found.extra["accuracy"] == pytest.approx(0.8, abs=1e-12)
    assert found.extra["originals"] == 1.0
    assert found.extra["ratio"] == pytest.approx(0.65)
    assert found.extra["classes"] == 3


def test_a_class_that_is_nowhere_is_left_out():
    found = Three().reduce(counts((T_A, T_A % 255)), counts((T_A, T_A % 255)))
    assert (found.value, found.extra["classes"]) == (1.0, 2)
    nothing = np.full((2, 4), 255, np.uint8)
    found = Three().reduce(counts((nothing, P_A)), counts((nothing, P_A)))
    assert np.isnan(found.value)
    assert found.reason == "no pixel of the set is labelled"


def test_shards_and_order_change_no_bit(segmenter, pictures):
    features = miou.METRICS["miou/eomt-large"].features(segmenter)
    images = pictures(8, (40, 56))
    rng = np.random.default_rng(0)
    labels = [segmenter.predict(image).astype(np.uint8) for image in images]
    for one in labels:
        one[rng.random(one.shape) < 0.3] = 255
        one[:10] = 7
    whole = features.extract(images, labels=labels)
    pairs = [(images[k : k + 2], labels[k : k + 2]) for k in range(0, 8, 2)]
    shards = [one for some, maps in pairs for one in features.extract(some, labels=maps)]
    assert all(np.array_equal(first, second) for first, second in zip(whole, shards, strict=True))
    assert whole[0].dtype == np.int64
    assert whole[0].shape == (133, 133)
    assert whole[0].sum() == np.count_nonzero(labels[0] != 255)
    worse = features.extract([255 - image for image in images], labels=labels)
    metric = miou.METRICS["miou/eomt-large"]()
    found = metric.reduce(whole, worse)
    assert 0 < found.value < found.extra["originals"] < 1
    assert metric.reduce(shards[::-1], worse[::-1]) == found


def test_wrong_use(segmenter, pictures):
    features = miou.METRICS["miou/eomt-large"].features(segmenter)
    [image] = pictures(1, (40, 56))
    good = np.zeros((40, 56), np.uint8)
    with pytest.raises(MetricError, match="1 images and 0 label maps"):
        features.extract([image])
    with pytest.raises(MetricError, match="56 x 41 and the prediction 56 x 40"):
        features.extract([image], labels=[np.zeros((41, 56), np.uint8)])
    with pytest.raises(MetricError, match="holds 133, and classes are 0 to 132"):
        features.extract([image], labels=[good + 133])
    with pytest.raises(MetricError, match="found float32"):
        features.extract([image], labels=[good.astype(np.float32)])
    with pytest.raises(MetricError, match="no image in the set"):
        Three().reduce([], [])
    with pytest.raises(MetricError, match="counts of 3 and of 133 classes"):
        Three().reduce(counts((T_A, P_A)), features.extract([image], labels=[good]))
    with pytest.raises(MetricError, match="counts are integers"):
        Three().reduce(counts((T_A, P_A)), [np.zeros((1, 2048), np.float32)])


def test_class_data():
    expected = {"miou/eomt-large": 133, "miou/eomt-small": 133, "miou/maskformer-stuff": 171}
    for name, dim in expected.items():
        cls = registry.load("metric", name)
        assert isinstance(cls(), SetMetric)
        assert isinstance(cls.features(), Features)
        assert (cls.name, cls.features.dim, cls.features.beside) == (name, dim, ("labels",))
        assert cls.classes.endswith(str(dim))
        assert cls.higher_is_better
    assert len({registry.load("metric", name).features.id for name in expected}) == 3
