"""FID under its presets: values of the implementations they are named after, refusals, shards and order."""

from __future__ import annotations

import numpy as np
import pytest

from rdpbench import registry
from rdpbench.errors import MetricError
from rdpbench.metrics.contract import SetMetric
from rdpbench.metrics.inception_distances import FEATURES, FID, METRICS
from rdpbench.metrics.sets import check_side
from rdpbench.runners.sets import kind

NAMES = sorted(name for name in registry.BUILTIN["metric"] if name.startswith("fid/"))


class Small(FID):
    """The same code on vectors of 64 numbers."""

    name = "fid/small"
    source = "the dossier's arrays"
    features = type("Sixty", (FEATURES["legacy-tf"],), {"id": "small", "dim": 64})


def arrays(offset=0.0, count=40):
    """Rows of the dossier's array X, or of Y."""
    i, j = np.arange(count)[:, None], np.arange(64)[None]
    if not offset:
        rows = np.sin(0.7 * i * (j + 1) + j) + ((i * 7 + j * 11) % 13) / 13
    else:
        rows = np.cos(0.9 * i * (j + 2) + j) * 1.1 + ((i * 5 + j * 3) % 17) / 17
    return [row[None] for row in rows]


def test_names_and_class_data():
    assert sorted(f"fid/{name}" for name in (
        "clean", "legacy-tf", "legacy-torch", "tm-1.8", "hific-patch", "hific-patch-noresize", "hfd-256", "perco-512",
        "taco-299/whole", "taco-299/patch", "text-sketch", "clean/fast", "hific-patch/fast", "legacy-tf/fast",
    )) == NAMES  # fmt: skip
    for name in NAMES:
        cls = registry.load("metric", name)
        assert isinstance(cls(), SetMetric)
        assert cls.name == name
        assert cls.kind == "set"
        assert not cls.higher_is_better
        assert cls.minimum_images > 24, "Kodak has 24 images: refused"


def test_what_is_shared_and_what_is_said():
    load = lambda name: registry.load("metric", name)  # noqa: E731
    assert {load(f"fid/{name}").features.id for name in ("legacy-tf", "hfd-256", "taco-299/whole", "text-sketch")} == {
        "inception/legacy-tf"
    }
    assert load("fid/perco-512").features is FEATURES["clean"]
    assert load("fid/taco-299/patch").features is FEATURES["hific-patch"]
    assert [name for name in NAMES if load(name).unverified] == [
        "fid/hfd-256", "fid/perco-512", "fid/taco-299/patch", "fid/taco-299/whole"
    ]  # fmt: skip
    assert [name for name in NAMES if load(name).reference != "originals"] == ["fid/text-sketch"]
    assert load("fid/text-sketch").reference == "clic2020-train@text-sketch-512"


def test_features_of_two_presets_are_stored_apart():
    """Vectors of all presets have 2048 entries: it is their kind that keeps them from meeting."""
    presets = {registry.load("metric", name).features for name in NAMES}
    assert len({kind(features) for features in presets}) == len({features.id for features in presets}) == 9


def test_the_dossiers_value():
    found = Small().reduce(arrays(), arrays(1.0))
    assert found.value == pytest.approx(51.28558, abs=1e-4)
    assert not found.reliable
    assert "40 feature vectors of 64 entries give a singular covariance" in found.reason
    assert Small().reduce(arrays(), arrays()).value == pytest.approx(0, abs=1e-5)
    assert Small().reduce(arrays(1.0), arrays()).value == pytest.approx(found.value, rel=1e-9)


def test_enough_rows_are_reliable():
    found = Small().reduce(arrays(count=64), arrays(1.0, count=70))
    assert found.reliable
    assert found.reason == ""


def test_order_and_rows_of_an_image():
    """Any order, and the same rows as single images or as patches of a few."""
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(80, 64)).astype(np.float32) + shift for shift in (0, 0.3))
    value = Small().reduce([*first[:, None]], [*second[:, None]]).value
    mixed = Small().reduce([*first[rng.permutation(80), None]], [*second[rng.permutation(80), None]]).value
    patches = Small().reduce(np.split(first, [3, 20, 21]), np.split(second, [40]))
    assert mixed == pytest.approx(value, rel=1e-9)
    assert patches.value == value


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "no image in the set"),
        ([np.zeros((1, 64), np.float32)], "at least 2 are needed"),
        ([np.zeros((1, 768), np.float32)] * 3, "are they of another preset"),
        ([np.zeros((64, 64), np.int64)] * 3, "takes features"),
        ([np.zeros(64, np.float32)] * 3, "takes features"),
        ([np.zeros((1, 64), np.float32), np.full((1, 64), np.nan, np.float32)], "image 1 hold NaN"),
    ],
)
def test_wrong_use(wrong, message):
    for pair in ((wrong, arrays()), (arrays(), wrong)):
        with pytest.raises(MetricError, match=message):
            Small().reduce(*pair)


def test_a_preset_of_a_size():
    check_side(METRICS["fid/perco-512"], 512, 768)
    check_side(METRICS["fid/clean"], 10, 20)
    with pytest.raises(MetricError, match="fid/hfd-256 is for images whose shorter side is 256, found 512 x 512"):
        check_side(METRICS["fid/hfd-256"], 512, 512)


def test_from_pixels_in_one_and_four_shards(inception_tensors, pictures):
    """The same features to rounding, and the same FID to 1e-5 of itself, from one process and from four."""
    first, second = pictures(4), pictures(4, seed=3)
    one = FEATURES["legacy-tf"](inception_tensors)
    whole = [one.extract(images) for images in (first, second)]
    shards = [[array for k in range(4) for array in one.extract(images[k : k + 1])] for images in (first, second)]
    together, apart = (METRICS["fid/legacy-tf"]().reduce(*arrays_).value for arrays_ in (whole, shards))
    assert together > 0.1
    assert apart == pytest.approx(together, rel=1e-5)


@pytest.fixture(scope="module")
def sets(pictures):
    """52 pictures, and the same with errors."""
    reference = pictures(52)
    noise = np.random.default_rng(9)
    worse = [np.clip(x + noise.normal(0, 20, x.shape), 0, 255).astype(np.uint8) for x in reference]
    return reference, worse


@pytest.mark.slow
def test_equals_torch_fidelity(inception_tensors, inception_file, sets):
    """FID and KID of 52 images, end to end: its own loop over a dataset of the same pixels."""
    import torch
    import torch_fidelity

    class Dataset(torch.utils.data.Dataset):
        def __init__(self, images):
            self.images = images

        def __len__(self):
            return len(self.images)

        def __getitem__(self, index):
            return torch.tensor(self.images[index]).permute(2, 0, 1)

    class Fewer(METRICS["kid/legacy-tf"]):
        size = 40

    theirs = torch_fidelity.calculate_metrics(
        input1=Dataset(sets[0]), input2=Dataset(sets[1]), fid=True, kid=True, kid_subset_size=40, batch_size=8,
        feature_extractor_weights_path=str(inception_file), cuda=False, verbose=False, save_cpu_ram=True,
        datasets_num_workers=0,
    )  # fmt: skip
    features = FEATURES["legacy-tf"](inception_tensors)
    found = [features.extract(images) for images in sets]
    assert METRICS["fid/legacy-tf"]().reduce(*found).value == pytest.approx(
        theirs["frechet_inception_distance"], rel=1e-4
    )
    kid = Fewer().reduce(*found)
    assert kid.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert kid.spread == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-3)


@pytest.mark.slow
def test_equals_torchmetrics(inception_tensors, inception_file, sets):
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3

    network = NoTrainInceptionV3("x", ["2048"], feature_extractor_weights_path=str(inception_file))
    theirs = FrechetInceptionDistance(feature=network)
    theirs.set_dtype(torch.float64)
    for images, real in zip(sets, (True, False), strict=True):
        for image in images:
            theirs.update(torch.tensor(image).permute(2, 0, 1)[None], real=real)
    features = FEATURES["tm-1.8"](inception_tensors)
    found = [features.extract(images) for images in sets]
    assert METRICS["fid/tm-1.8"]().reduce(*found).value == pytest.approx(float(theirs.compute()), rel=1e-4)
