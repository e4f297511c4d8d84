"""The network and the presets against torch-fidelity, torchmetrics, pytorch-fid and clean-fid, on the same weights."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from rdpbench import registry
from rdpbench.assets.weights import Weights
from rdpbench.errors import MetricError
from rdpbench.metrics.contract import Features
from rdpbench.metrics.inception_distances import FEATURES, hific
from rdpbench.networks.inception import CARD, build_inception, pool3
from rdpbench.results.store.keys import features_key

PRESETS = [features for name, features in FEATURES.items() if not name.endswith("/fast")]
WHOLE = PRESETS[:4]


@pytest.fixture(scope="module")
def images(photograph, compress):
    """Three sizes; the last smaller than 299, the third noise."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    return [photograph[:400, :360], compress(photograph, 10)[100:300, 50:300], noise]


@pytest.fixture(scope="module")
def ours(inception_tensors, images):
    return {cls: cls(inception_tensors).extract(images) for cls in WHOLE}


def planes(image):
    import torch

    return torch.tensor(image).permute(2, 0, 1)[None]


def test_legacy_tf_is_torch_fidelity(inception_file, images, ours):
    """Bit for bit."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    theirs = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(inception_file))
    for image, found in zip(images, ours[FEATURES["legacy-tf"]], strict=True):
        with torch.no_grad():
            expected = theirs(planes(image))[0].numpy()
        assert np.array_equal(found, expected)
        assert expected.std() > 0.1


@pytest.mark.parametrize(("cls", "antialias"), [(FEATURES["tm-1.8"], True), (FEATURES["legacy-tf"], False)])
def test_tm_is_torchmetrics(inception_file, images, ours, cls, antialias):
    """Bit for bit; its ``antialias=False`` is legacy-tf."""
    import torch
    from torchmetrics.image.fid import NoTrainInceptionV3

    theirs = NoTrainInceptionV3("x", ["2048"], feature_extractor_weights_path=str(inception_file), antialias=antialias)
    for image, found in zip(images, ours[cls], strict=True):
        with torch.no_grad():
            expected = theirs(planes(image)).numpy()
        assert np.array_equal(found[0], expected.reshape(-1))


def test_legacy_torch_is_pytorch_fid(inception_tensors, images, ours, monkeypatch):
    """Bit for bit, with its own class, its ToTensor and its loader given our weights."""
    import torch
    from pytorch_fid import inception
    from torchvision.transforms.functional import to_tensor

    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: inception_tensors)
    theirs = inception.InceptionV3([3]).eval()
    for image, found in zip(images, ours[FEATURES["legacy-torch"]], strict=True):
        with torch.no_grad():
            expected = theirs(to_tensor(image.copy())[None])[0].reshape(1, -1).numpy()
        assert np.array_equal(found, expected)


def test_clean_is_clean_fid(inception_file, images, ours):
    """clean-fid's resize and scaling, into the network that torch-fidelity brings: its own file is not needed."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pkg_resources.*")
        from cleanfid.resize import build_resizer
    network = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(inception_file))
    for image, found in zip(images, ours[FEATURES["clean"]], strict=True):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'mode' parameter is deprecated", DeprecationWarning)
            resized = torch.tensor(build_resizer("clean")(image)).permute(2, 0, 1)[None]
        with torch.no_grad():
            expected = pool3(network, (resized - 128) / 128).numpy()
        assert np.abs(found - expected).max() < 1e-5 * expected.max()
        # It would notice the smallest mistake: rounding to 8 bits after the resize.
        with torch.no_grad():
            rounded = pool3(network, (resized.round() - 128) / 128).numpy()
        assert np.abs(found - rounded).max() > 1e-4 * expected.max()


def test_presets_differ(ours):
    """By 1 % and more on photographs: no two names for one thing."""
    for number, first in enumerate(WHOLE):
        for second in WHOLE[number + 1 :]:
            difference = np.linalg.norm(ours[first][0] - ours[second][0]) / np.linalg.norm(ours[first][0])
            assert difference > 1e-3


def test_patches_are_images_of_their_own(inception_tensors, photograph):
    """One row for each patch, as if the patches had come one by one; two grids from 384 pixels on."""
    image = photograph[:400, :512]
    cut = list(hific(image))
    assert len(cut) == 2 + 1
    found = FEATURES["hific-patch"](inception_tensors).extract([image])[0]
    alone = FEATURES["legacy-tf"](inception_tensors).extract(cut)
    assert found.shape == (3, 2048)
    assert np.abs(found - np.concatenate(alone)).max() <= 1e-5 * found.max()
    assert np.abs(found[0] - found[1]).max() > 1e-2


def test_patches_without_resize(inception_tensors, photograph):
    import torch

    patch = photograph[:256, 100:356]
    with torch.inference_mode():
        expected = pool3(build_inception(inception_tensors), (planes(patch).float() - 128) / 128).numpy()
    found = FEATURES["hific-patch-noresize"](inception_tensors).extract([patch])[0]
    assert np.array_equal(found, expected)


def test_one_at_a_time_and_eight_together(inception_tensors, pictures):
    """Rounding only: 1e-5 of the largest feature, measured 2e-6."""
    mixed = pictures(5, (70, 90)) + pictures(3, (100, 64), seed=1)
    features = FEATURES["legacy-tf"](inception_tensors)
    together = features.extract(mixed)
    alone = [features.extract([image])[0] for image in mixed]
    for first, second in zip(together, alone, strict=True):
        assert first.shape == second.shape == (1, 2048)
        assert first.dtype == np.float32
        assert np.abs(first - second).max() <= 1e-5 * second.max()


def test_views_and_read_only_images(inception_tensors, photograph):
    flipped = photograph[:80:, 90:10:-1]
    flipped.flags.writeable = False
    features = FEATURES["clean"](inception_tensors)
    assert np.array_equal(features.extract([flipped])[0], features.extract([flipped.copy()])[0])
    assert features.extract([]) == []


@pytest.mark.parametrize("cls", PRESETS)
def test_class_data(cls, inception_tensors):
    assert isinstance(cls(), Features)
    assert cls.dim == 2048
    assert cls.needs[1] == Weights(CARD)
    assert len({one.id for one in PRESETS}) == len(PRESETS)


def test_wrong_images(inception_tensors, photograph):
    features = FEATURES["legacy-tf"](inception_tensors)
    unit = (photograph / 255).astype(np.float32)
    for wrong in (unit, unit * 255, photograph[:, :, 0], photograph[:0]):
        with pytest.raises(MetricError, match=r"inception/legacy-tf: the image (must be uint8|has no pixels)"):
            features.extract([photograph[:80, :80], wrong])
    with pytest.raises(MetricError, match="300 x 200"):
        FEATURES["hific-patch"](inception_tensors).extract([photograph[:200, :300]])


def test_wrong_tensors(inception_tensors):
    import torch

    lacking = {name: tensor for name, tensor in inception_tensors.items() if name != "Mixed_7c.branch_pool.conv.weight"}
    with pytest.raises(MetricError, match=r"Mixed_7c\.branch_pool\.conv\.weight .* is missing"):
        build_inception(lacking)
    with pytest.raises(MetricError, match=r"AuxLogits\.fc\.weight \(1,\) has no place"):
        build_inception({**inception_tensors, "AuxLogits.fc.weight": torch.zeros(1)})
    with pytest.raises(MetricError, match=r"fc\.weight is \(1000, 2048\), must be \(1008, 2048\)"):
        build_inception({**inception_tensors, "fc.weight": torch.zeros(1000, 2048)})


@pytest.mark.parametrize("name", ["clean", "legacy-tf", "hific-patch"])
def test_fast_has_names_of_its_own(name, inception_tensors, photograph):
    """The same features up to rounding on a CPU; stored, cached and named apart, so that they never meet."""
    usual, fast = (registry.load("metric", f"fid/{name}{end}") for end in ("", "/fast"))
    assert (fast.name, registry.load("metric", f"kid/{name}/fast").features) == (f"fid/{name}/fast", fast.features)
    assert features_key(fast.features) != features_key(usual.features)
    assert fast.features.id != usual.features.id
    image = np.ascontiguousarray(photograph[:256, :256])
    [one] = usual.features(inception_tensors).extract([image])
    [other] = fast.features(inception_tensors).extract([image])
    assert np.abs(one - other).max() <= 1e-5 * np.abs(one).max()
