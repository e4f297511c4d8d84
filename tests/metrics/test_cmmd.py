"""CMMD against a plain computation with transformers' class and PIL, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rdpbench import registry
from rdpbench.errors import MetricError
from rdpbench.metrics import mmd
from rdpbench.metrics.contract import Features, SetMetric
from rdpbench.networks.clip import DEVIATION, MEAN, Clip


@pytest.fixture(scope="module")
def vision():
    """transformers' real class with seeded random weights and small sizes."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = CLIPVisionModelWithProjection(
        CLIPVisionConfig(**sizes, image_size=28, patch_size=14, projection_dim=32, initializer_factor=8.0)
    )
    return model.eval()


@pytest.fixture
def projected(vision):
    return type("Small", (mmd.Projected,), {"dim": 32})(Clip(vision))


class SmallCMMD(mmd.CMMD):
    features = type("Small", (mmd.Projected,), {"dim": 32})


class SmallNoProj(mmd.METRICS["cmmd/noproj"]):
    features = type("SmallNoProj", (mmd.Unprojected,), {"dim": 48})


class SmallUnbiased(mmd.METRICS["cmmd/unbiased"]):
    features = SmallCMMD.features


def plain_embedding(vision, image, attribute):
    """Centre square, PIL bicubic in 8 bits, CLIP's mean and deviation, transformers' forward pass."""
    import torch
    from PIL import Image as pil

    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pil.fromarray(np.ascontiguousarray(image[top : top + side, left : left + side]))
    small = np.array(square.resize((28, 28), pil.Resampling.BICUBIC)).astype(np.float32) / 255
    values = (small - np.float32(MEAN)) / np.float32(DEVIATION)
    with torch.no_grad():
        found = vision(pixel_values=torch.tensor(values).permute(2, 0, 1)[None])
        pooled = found.image_embeds if attribute == "image_embeds" else vision.vision_model(
            pixel_values=torch.tensor(values).permute(2, 0, 1)[None]
        ).pooler_output  # fmt: skip
    return pooled[0].double().numpy()


def plain_cmmd(first, second, *, unbiased=False):
    """Loops over pairs, as the definition says; float64."""
    first, second = ([one / np.linalg.norm(one) for one in rows] for rows in (first, second))
    kernel = lambda a, b: np.exp(-((a - b) ** 2).sum() / 200)  # noqa: E731

    def own(rows):
        pairs = itertools.permutations(rows, 2) if unbiased else itertools.product(rows, repeat=2)
        return np.mean([kernel(a, b) for a, b in pairs])

    return 1000 * (own(first) + own(second) - 2 * np.mean([kernel(a, b) for a in first for b in second]))


@pytest.fixture(scope="module")
def sets(pictures):
    """Two sets of 10 and 9 images of two sizes."""
    return (
        pictures(5, (40, 60)) + pictures(5, (50, 50), seed=1),
        pictures(5, (40, 60), seed=2) + pictures(4, (61, 37), seed=3),
    )


@pytest.mark.parametrize(
    ("metric", "attribute", "unbiased"),
    [
        (SmallCMMD, "image_embeds", False),
        (SmallNoProj, "pooler_output", False),
        (SmallUnbiased, "image_embeds", True),
    ],
)
def test_equals_a_plain_computation(vision, sets, metric, attribute, unbiased):
    features = metric.features(Clip(vision))
    found = metric().reduce(*(features.extract(images) for images in sets)).value
    expected = plain_cmmd(
        *([plain_embedding(vision, x, attribute) for x in images] for images in sets), unbiased=unbiased
    )
    assert abs(expected) > 0.01
    assert found == pytest.approx(expected, abs=1e-4 * abs(expected))


def test_embeddings_are_stored_as_they_come(projected, vision, sets):
    found = projected.extract(sets[0])
    assert all(array.shape == (1, 32) and array.dtype == np.float32 for array in found)
    expected = plain_embedding(vision, sets[0][3], "image_embeds")
    assert found[3][0] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert abs(np.linalg.norm(found[3]) - 1) > 0.01
    # Their length is no matter.
    doubled = [2 * array for array in found]
    other = projected.extract(sets[1])
    assert SmallCMMD().reduce(doubled, other).value == pytest.approx(SmallCMMD().reduce(found, other).value, rel=1e-9)


def test_only_the_centre_square_is_seen(projected):
    image = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    other = image.copy()
    other[:, :20] = 0
    other[:, 60:] = 255
    first, second = projected.extract([image, other])
    assert np.array_equal(first, second)
    other[:, 21:30] = 0
    assert not np.array_equal(first, projected.extract([other])[0])


def test_one_and_eight_together_and_shards_in_any_order(projected, sets):
    first, second = sets
    whole = SmallCMMD().reduce(projected.extract(first), projected.extract(second)).value
    alone = [[projected.extract([image])[0] for image in images] for images in sets]
    for one, many in zip(alone[0], projected.extract(first), strict=True):
        assert np.abs(one - many).max() <= 1e-5 * np.abs(many).max()
    assert SmallCMMD().reduce(*alone).value == pytest.approx(whole, rel=1e-4)
    backwards = SmallCMMD().reduce(alone[0][::-1], alone[1][::-1]).value
    assert backwards == pytest.approx(SmallCMMD().reduce(*alone).value, abs=1e-9)


def test_class_data():
    for name, dim, minimum in (
        ("cmmd", 768, 500),
        ("cmmd/noproj", 1024, 500),
        ("cmmd/unbiased", 768, 100),
        ("cmmd/split", 768, 100),
    ):
        cls = registry.load("metric", name)
        assert isinstance(cls(), SetMetric)
        assert isinstance(cls.features(), Features)
        assert (cls.name, cls.features.dim, cls.minimum_images) == (name, dim, minimum)
        assert not cls.higher_is_better
        assert bool(cls.unverified) == (name == "cmmd/noproj")
    assert mmd.CMMD.features is mmd.METRICS["cmmd/unbiased"].features
    assert mmd.CMMD.features.id != mmd.METRICS["cmmd/noproj"].features.id


class SmallSplit(mmd.METRICS["cmmd/split"]):
    features = SmallUnbiased.features


def test_a_lossless_codec_is_below_zero_but_where_images_are_apart(projected, sets):
    rows = projected.extract(sets[0])
    found = SmallUnbiased().reduce(rows, rows)
    assert found.value < 0
    assert found.extra["apart"] == pytest.approx(0, abs=1e-9)
    assert found.reason.endswith("for small distances take cmmd/split")
    assert SmallSplit().reduce(rows, rows).value == pytest.approx(0, abs=1e-9)
    with pytest.raises(MetricError, match="are no pairs"):
        SmallSplit().reduce(rows, rows[1:])


def test_wrong_use(projected, sets):
    rows = projected.extract(sets[0])
    with pytest.raises(MetricError, match="must be uint8"):
        projected.extract([(sets[0][0] / 255).astype(np.float32)])
    with pytest.raises(MetricError, match="no image in the set"):
        SmallCMMD().reduce([], rows)
    with pytest.raises(MetricError, match="another preset"):
        SmallCMMD().reduce(rows, [np.ones((1, 48), np.float32)] * 3)
    with pytest.raises(MetricError, match="image 1 hold NaN"):
        SmallCMMD().reduce(rows, [rows[0], np.full((1, 32), np.nan, np.float32)])
    with pytest.raises(MetricError, match="at least 2 are needed"):
        SmallUnbiased().reduce(rows, rows[:1])
    with pytest.raises(MetricError, match="an embedding is zero"):
        SmallCMMD().reduce(rows, [np.zeros((1, 32), np.float32)])
    assert SmallCMMD().reduce(rows, rows).value == pytest.approx(0, abs=1e-9)
