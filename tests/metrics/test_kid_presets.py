"""KID under FID's presets: seeded subsets, the full set, and clean-fid's own loop over a folder."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from rdpbench import registry
from rdpbench.errors import MetricError
from rdpbench.metrics import mmd
from rdpbench.metrics.contract import SetMetric
from rdpbench.metrics.inception_distances import FEATURES, METRICS

NAMES = sorted(name for name in registry.BUILTIN["metric"] if name.startswith("kid/"))


class Few(METRICS["kid/legacy-tf"]):
    """Subsets of 30."""

    size = 30


class FewFull(METRICS["kid/legacy-tf"]):
    size = None


def rows(count, shift=0.0, seed=0):
    made = np.random.default_rng(seed).normal(shift, 1, (count, 2048)).astype(np.float32)
    return [*made[:, None]]


def test_every_preset_of_fid_has_both():
    expected = {name.replace("fid/", "kid/", 1) for name in registry.BUILTIN["metric"] if name.startswith("fid/")}
    full = {f"{name}/full" for name in expected if not name.endswith("/fast")}
    assert set(NAMES) == expected | full | {"kid/clean/split", "kid/hific-patch/split", "kid/legacy-tf/split"}
    for name in NAMES:
        cls = registry.load("metric", name)
        partner = registry.load("metric", name.replace("kid/", "fid/", 1).removesuffix("/full").removesuffix("/split"))
        assert isinstance(cls(), SetMetric)
        assert cls.name == name
        assert cls.features is partner.features
        assert (cls.reference, cls.unverified, cls.side) == (partner.reference, partner.unverified, partner.side)
        assert cls.minimum_images > 24, "Kodak has 24 images: refused"
        assert cls.subsets == 100
        assert cls.size == (None if name.endswith(("/full", "/split")) else 100 if "text-sketch" in name else 1000)
    assert mmd.SEED == 2020


class FewSplit(FewFull):
    pairs = "apart"


def test_a_small_distance_says_what_lowers_it():
    """Pairs of an original with its own reconstruction: a lossless codec is below zero, and the table says why."""
    ours = rows(40)
    for metric in (Few(), FewFull()):
        found = metric.reduce(ours, ours)
        assert found.value < -0.01
        assert found.extra["apart"] == pytest.approx(0, abs=1e-9 if metric.size is None else 1e-3)  # subsets differ
        assert found.reason.startswith("lowered by pairs of an original with its own reconstruction")
        far = metric.reduce(ours, rows(40, 1.0, seed=1))
        assert (far.reason, far.extra["apart"]) == ("", pytest.approx(far.value, rel=0.1))
    assert FewSplit().reduce(ours, ours).value == pytest.approx(0, abs=1e-9)
    other = rows(40, 0.1, seed=1)
    assert FewSplit().reduce(ours, other).value == FewFull().reduce(ours, other).extra["apart"]
    with pytest.raises(MetricError, match="40 originals and 39 reconstructions are no pairs"):
        FewSplit().reduce(ours, other[1:])


def test_the_same_subsets_at_every_rate():
    """Equal on two runs, and two rates that differ by little differ by little: the draw is the same."""
    reference = rows(60)
    first = Few().reduce(reference, rows(60, 0.1, seed=1))
    assert first == Few().reduce(reference, rows(60, 0.1, seed=1))
    assert first.spread > 0
    other = Few().reduce(reference, [row + np.float32(1e-6) for row in rows(60, 0.1, seed=1)])
    assert 0 < abs(other.value - first.value) < 1e-2 * first.spread


def test_full_takes_all_pairs_in_any_order():
    reference, distorted = rows(50), rows(45, 0.2, seed=1)
    found = FewFull().reduce(reference, distorted)
    assert found.spread is None
    assert found.value == mmd.polynomial_mmd(np.concatenate(reference), np.concatenate(distorted))
    shuffled = [reference[i] for i in np.random.default_rng(3).permutation(50)]
    assert FewFull().reduce(shuffled, distorted).value == pytest.approx(found.value, rel=1e-9)
    patches = FewFull().reduce([np.concatenate(reference[:20]), np.concatenate(reference[20:])], distorted)
    assert patches.value == found.value


def test_equal_distributions_may_give_less_than_zero():
    values = [FewFull().reduce(rows(40, seed=seed), rows(40, seed=seed + 100)).value for seed in range(8)]
    assert min(values) < 0 < max(values)


def test_wrong_use():
    with pytest.raises(MetricError, match=r"subsets of 30 needs as many rows in each set, found 29 and 40"):
        Few().reduce(rows(29), rows(40))
    with pytest.raises(MetricError, match="no image in the set"):
        Few().reduce([], rows(40))
    with pytest.raises(MetricError, match="at least 2 are needed"):
        FewFull().reduce(rows(1), rows(40))
    with pytest.raises(MetricError, match="another preset"):
        Few().reduce([np.zeros((1, 768), np.float32)] * 40, rows(40))
    broken = rows(40)
    broken[7][0, 5] = np.inf
    with pytest.raises(MetricError, match="image 7 hold NaN"):
        Few().reduce(rows(40), broken)


def test_kodak_is_refused_by_patches_too():
    """24 images give 192 patches, fewer than a subset and than FID's 2048."""
    assert METRICS["kid/hific-patch"].minimum_images == METRICS["fid/hific-patch"].minimum_images == 100
    with pytest.raises(MetricError, match="found 192 and 192"):
        METRICS["kid/hific-patch"]().reduce(rows(192), rows(192, seed=1))


@pytest.mark.slow
def test_equals_clean_fid(inception_tensors, inception_file, pictures, tmp_path):
    """Its folder loop, resize and kernel, with subsets as large as the sets: then its unseeded draw is no matter."""
    import torch
    from PIL import Image as pil
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    from rdpbench.networks.inception import pool3

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pkg_resources.*")
        from cleanfid.fid import get_folder_features, kernel_distance
    network = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(inception_file))
    sets = [pictures(50), pictures(50, seed=5)]
    theirs = []
    for number, images in enumerate(sets):
        folder = tmp_path / str(number)
        folder.mkdir()
        for index, image in enumerate(images):
            pil.fromarray(image).save(folder / f"{index:03}.png")
        with warnings.catch_warnings(), torch.no_grad():
            warnings.filterwarnings("ignore", "'mode' parameter is deprecated", DeprecationWarning)
            theirs.append(
                get_folder_features(
                    str(folder), lambda x: pool3(network, (x - 128) / 128), num_workers=0, batch_size=10,
                    device=torch.device("cpu"), mode="clean", verbose=False,
                )
            )  # fmt: skip
    features = FEATURES["clean"](inception_tensors)
    ours = [features.extract(images) for images in sets]
    for mine, other in zip(ours, theirs, strict=True):
        assert np.abs(np.concatenate(mine) - other).max() < 1e-5 * other.max()
    expected = kernel_distance(*theirs, num_subsets=3, max_subset_size=1000)
    assert METRICS["kid/clean/full"]().reduce(*ours).value == pytest.approx(expected, rel=1e-3)
