"""The four resizes against the implementations that they are named after; and that they are four."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

from rdpbench.networks import inception

SIZES = [(512, 768), (333, 500), (256, 256), (299, 299), (64, 80)]
"""Shrinking, shrinking a little, enlarging, nothing to do, enlarging much."""


def batch(image):
    import torch

    return torch.tensor(image).permute(2, 0, 1)[None].float()


def image_of(size, photograph):
    height, width = size
    return np.tile(photograph, (1, 2, 1))[:height, 100 : 100 + width]


@pytest.mark.parametrize("size", SIZES)
def test_clean_is_clean_fid(photograph, size):
    """The last bit of float32 from Pillow's resize of float images, one channel at a time (0.002 would be enough)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pkg_resources.*")
        from cleanfid.resize import build_resizer
    x = image_of(size, photograph)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'mode' parameter is deprecated", DeprecationWarning)
        theirs = build_resizer("clean")(x)
    ours = inception.clean(batch(x))[0].permute(1, 2, 0).numpy()
    assert ours.shape == theirs.shape == (299, 299, 3)
    assert np.abs(ours - theirs).max() <= 5e-5
    assert ours.min() >= 0
    assert ours.max() <= 255


def test_clean_does_not_round_and_clips(photograph):
    ours = inception.clean(batch(photograph)).numpy()
    assert np.abs(ours - np.round(ours)).mean() > 0.2
    edge = np.zeros((40, 40, 3), np.uint8)
    edge[:, 20:] = 255
    enlarged = inception.clean(batch(edge))
    assert float(enlarged.min()) == 0
    assert float(enlarged.max()) == 255


@pytest.mark.parametrize("size", SIZES)
def test_tf1_is_torch_fidelity(photograph, size):
    import torch
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    x = batch(image_of(size, photograph))
    theirs = interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
    assert torch.equal(inception.tf1(x), theirs)


def test_tf1_by_hand():
    """Row i of the result is read at i * 3 / 2: between rows 1 and 2 for i = 1."""
    import torch

    x = torch.tensor([[0.0, 10.0, 20.0], [100.0, 110.0, 120.0], [200.0, 210.0, 220.0]]).expand(1, 3, 3, 3)
    assert inception.tf1(x, 2)[0, 0].tolist() == [[0, 15], [150, 165]]


def test_plain_and_antialiased_are_torch(photograph):
    import torch
    from torch.nn.functional import interpolate

    x = batch(photograph)
    kept = x.clone()
    for ours, antialias in ((inception.plain, False), (inception.antialiased, True)):
        theirs = interpolate(x, (299, 299), mode="bilinear", align_corners=False, antialias=antialias)
        assert torch.equal(ours(x), theirs)
    for resize in (inception.clean, inception.tf1):
        resize(x)
        assert torch.equal(x, kept)


def test_they_are_four_filters(photograph):
    """On a photograph they differ by a grey level and more on average: a name is needed."""
    x = batch(image_of((512, 768), photograph))
    done = [resize(x) for resize in (inception.clean, inception.antialiased, inception.plain, inception.tf1)]
    for first, second in itertools.combinations(done, 2):
        assert float((first - second).abs().mean()) > 0.5


def test_images_of_a_batch_do_not_touch_each_other(photograph):
    import torch

    first, second = batch(photograph), batch(photograph[::-1].copy())
    for resize in (inception.clean, inception.antialiased, inception.plain, inception.tf1):
        assert torch.equal(resize(torch.cat([first, second]))[1:], resize(second))
