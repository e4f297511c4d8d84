"""mIoU: one matrix for the dataset, torchmetrics, the wrong variants, label tables, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rdpbench.datasets.labels import PANOPTIC_133, STUFF_171
from rdpbench.errors import MetricError
from rdpbench.metrics.miou import confusion, merge, scores

TRUTHS = np.array([[0, 0, 1, 1], [0, 0, 1, 255]]), np.array([[2, 2, 2, 2], [0, 0, 0, 0]])
PREDICTIONS = np.array([[0, 0, 1, 1], [0, 1, 1, 0]]), np.array([[2, 2, 0, 0], [0, 0, 0, 0]])


def both():
    return [confusion(*pair, classes=3) for pair in zip(TRUTHS, PREDICTIONS, strict=True)]


def test_the_dataset_has_one_matrix():
    found = scores(merge(both()))
    np.testing.assert_allclose(found.iou, [0.70, 0.75, 0.50], atol=1e-15)
    assert found.miou == pytest.approx(0.65, abs=1e-15)
    assert found.accuracy == pytest.approx(0.80, abs=1e-15)
    assert found.classes == 3


def test_the_wrong_ways_give_other_numbers():
    """So that a change to one of them cannot pass unseen."""
    per_image = np.mean([scores(counts).miou for counts in both()])
    assert per_image == pytest.approx(0.6666666667, abs=1e-9)
    # 255 as a fourth class that nobody predicts: its pixel becomes a false positive of class 0.
    truths = [np.where(truth == 255, 3, truth) for truth in TRUTHS]
    counted = merge(confusion(*pair, classes=4) for pair in zip(truths, PREDICTIONS, strict=True))
    assert scores(counted).iou[:3].mean() == pytest.approx(0.6288, abs=5e-5)
    # 255 as class 0, as torchmetrics' MeanIoU needs it.
    truths = [np.where(truth == 255, 0, truth) for truth in TRUTHS]
    rewritten = merge(confusion(*pair, classes=3) for pair in zip(truths, PREDICTIONS, strict=True))
    assert scores(rewritten).miou == pytest.approx(0.65909, abs=5e-6)


def test_equals_torchmetrics():
    torch = pytest.importorskip("torch")
    from torchmetrics.classification import MulticlassJaccardIndex

    rng = np.random.default_rng(1)
    # Class 6 occurs in no truth and no prediction.
    truths = [
        rng.choice([0, 1, 2, 3, 4, 5, 255], size=(20, 30), p=[0.3, 0.3, 0.1, 0.1, 0.05, 0.05, 0.1]) for _ in "abcd"
    ]
    predictions = [np.where(rng.random((20, 30)) < 0.6, truth, rng.integers(0, 6, (20, 30))) % 255 for truth in truths]
    theirs = MulticlassJaccardIndex(num_classes=7, average="none", ignore_index=255)
    for truth, prediction in zip(truths, predictions, strict=True):
        theirs.update(torch.from_numpy(prediction)[None], torch.from_numpy(truth)[None])
    found = scores(merge(confusion(*pair, classes=7) for pair in zip(truths, predictions, strict=True)))
    np.testing.assert_allclose(np.nan_to_num(found.iou), theirs.compute().numpy(), atol=1e-6)
    macro = MulticlassJaccardIndex(num_classes=7, average="macro", ignore_index=255)
    for truth, prediction in zip(truths, predictions, strict=True):
        macro.update(torch.from_numpy(prediction)[None], torch.from_numpy(truth)[None])
    assert found.miou == pytest.approx(float(macro.compute()), abs=1e-6)
    assert found.classes == 6


def test_order_and_shards_give_the_same_integers():
    rng = np.random.default_rng(2)
    counts = [confusion(*rng.integers(0, 171, (2, 40, 50), dtype=np.uint8), classes=171) for _ in range(12)]
    whole = merge(counts)
    for shards in (counts[::-1], [merge(counts[i::4]) for i in range(4)], [merge(counts[5:]), merge(counts[:5])]):
        assert np.array_equal(merge(shards), whole)
    assert whole.dtype == np.int64
    assert whole.sum() == 12 * 40 * 50


def test_merging_leaves_its_arguments_alone():
    counts = both()
    before = [one.copy() for one in counts]
    merge(counts)
    assert all(np.array_equal(*pair) for pair in zip(counts, before, strict=True))


def test_a_class_that_is_nowhere_is_not_in_the_mean():
    found = scores(confusion(np.array([[0, 0, 2, 2]]), np.array([[0, 0, 2, 0]]), classes=5))
    assert np.isnan(found.iou[[1, 3, 4]]).all()
    assert found.miou == pytest.approx((2 / 3 + 1 / 2) / 2)
    # One that is predicted but never true counts, as zero.
    found = scores(confusion(np.array([[0, 0, 2, 2]]), np.array([[0, 0, 2, 1]]), classes=5))
    assert found.miou == pytest.approx((1 + 0 + 1 / 2) / 3)


def test_a_perfect_prediction_is_one_whatever_is_ignored():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, (30, 30))
    prediction = truth.copy()
    truth[:7] = 255
    found = scores(confusion(truth, prediction, classes=4))
    assert (found.miou, found.accuracy) == (1.0, 1.0)


def test_nothing_to_score():
    found = scores(confusion(np.full((3, 3), 255), np.zeros((3, 3), int), classes=4))
    assert math.isnan(found.miou)
    assert math.isnan(found.accuracy)
    assert found.classes == 0


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (
            np.zeros((2, 4), int),
            np.zeros((4, 2), int),
            r"ground truth is 4 x 2 and the prediction 2 x 4 \(width x height",
        ),
        (np.zeros((2, 4)), np.zeros((2, 4), int), "ground truth is a map of class indices .*found float64"),
        (np.zeros((2, 4), int), np.zeros((2, 4, 3), int), "prediction is a map"),
        (np.full((2, 4), 7), np.zeros((2, 4), int), "ground truth holds 7, and classes are 0 to 2"),
        (np.zeros((2, 4), int), np.full((2, 4), 255), "prediction holds 255"),
        (np.full((2, 4), 255), np.full((2, 4), 255), "prediction holds 255"),
        (np.full((2, 4), -1), np.zeros((2, 4), int), "ground truth holds -1"),
    ],
)
def test_what_is_refused(truth, prediction, message):
    with pytest.raises(MetricError, match=message):
        confusion(truth, prediction, classes=3)


def test_counts_that_do_not_add_up():
    with pytest.raises(MetricError, match="no image in the set"):
        merge([])
    with pytest.raises(MetricError, match="of 2 and of 3 classes"):
        merge([np.eye(2, dtype=int), np.eye(3, dtype=int)])
    with pytest.raises(MetricError, match="counts are integers"):
        merge([np.eye(2)])
    with pytest.raises(MetricError, match="counts are integers"):
        scores(np.zeros((2, 3), int))


def test_coco_tables_have_all_classes():
    assert sorted(set(STUFF_171) - {255}) == list(range(171))
    assert sorted(set(PANOPTIC_133) - {255}) == list(range(133))
    assert (STUFF_171 != 255).sum() == 171


def test_coco_tables_agree_with_the_official_lists(shared):
    folder = shared / "data" / "coco" / "annotations"
    if not (folder / "cocostuff_labels.txt").is_file():
        pytest.skip("COCO's category lists are not in the shared folder")
    lines = (folder / "cocostuff_labels.txt").read_text().splitlines()
    stuff = {int(number): name for number, name in (line.split(": ") for line in lines)}
    panoptic = json.loads((folder / "panoptic_val2017.json").read_text())["categories"]
    assert [int(PANOPTIC_133[one["id"]]) for one in panoptic] == list(range(133))
    names = [one["name"] for one in panoptic]
    for number, name in stuff.items():
        index = int(PANOPTIC_133[number])
        if index == 255:  # given up, or merged into a category of another number
            assert name not in names
        else:
            assert names[index] == name
