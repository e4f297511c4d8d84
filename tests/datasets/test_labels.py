"""Label maps: COCO's two formats to class indices, the PNGs between, and the geometry of protocols."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.datasets.labels import COUNT, from_panoptic, from_stuff, load_labels, write_labels
from rdpbench.errors import ImageError


def colours(ids):
    ids = np.asarray(ids, np.uint32)
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)


def test_panoptic_by_hand():
    """Ids above 16 bits, two segments of one class, a crowd, and pixels of no segment."""
    ids = [[0, 3226956], [3226956, 70000], [5, 5]]
    segments = [
        {"id": 3226956, "category_id": 1, "iscrowd": 1},
        {"id": 70000, "category_id": 200, "iscrowd": 0},
        {"id": 5, "category_id": 1, "iscrowd": 0},
        {"id": 999, "category_id": 92, "iscrowd": 0},
    ]
    found = from_panoptic(colours(ids), segments)
    assert found.tolist() == [[255, 0], [0, 132], [0, 0]]
    assert found.dtype == np.uint8


def test_panoptic_counts_all_categories():
    """80 things and 53 kinds of stuff, in the order of their ids, without a gap."""
    missing = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
    things = [one for one in range(1, 91) if one not in missing]
    stuff = [
        92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145, 147, 148, 149, 151, 154,
        155, 156, 159, 161, 166, 168, 171, 175, 176, 177, 178, 180, 181, *range(184, 201),
    ]  # fmt: skip
    categories = things + stuff
    segments = [{"id": number + 1, "category_id": one} for number, one in enumerate(categories)]
    found = from_panoptic(colours([np.arange(1, 134)]), segments)
    assert found[0].tolist() == list(range(COUNT["coco-panoptic-133"]))


def test_panoptic_errors():
    with pytest.raises(ImageError, match=r"segments \[9\] are in the PNG and not in the JSON"):
        from_panoptic(colours([[9]]), [])
    for category in (12, 94, 183, 201, 70000):
        with pytest.raises(ImageError, match=rf"categories \[{category}\] are not among the 133"):
            from_panoptic(colours([[9]]), [{"id": 9, "category_id": category}])


def test_stuff():
    found = from_stuff(np.array([[0, 10, 12, 89], [91, 181, 255, 255]], np.uint8))
    assert found.tolist() == [[0, 10, 11, 79], [80, 170, 255, 255]]
    with pytest.raises(ImageError, match=r"labels \[11, 182\] are not among its 171 classes"):
        from_stuff(np.array([[11, 182, 0]], np.uint8))
    with pytest.raises(ImageError, match="8-bit grey"):
        from_stuff(np.zeros((2, 2, 3), np.uint8))


def test_a_png_and_back_under_a_protocol(tmp_path):
    labels = np.repeat(np.arange(6, dtype=np.uint8)[:, None], 9, axis=1)
    labels[0, 0] = 255
    path = tmp_path / "one.png"
    write_labels(path, labels, "coco-panoptic-133")
    assert np.array_equal(load_labels(path), labels)
    assert np.array_equal(load_labels(path, classes="coco-panoptic-133"), labels)
    resized = load_labels(path, "perco-512")
    assert resized.shape == (512, 512)
    # Nearest: no class that was not there, and each keeps its sixth of the height.
    assert np.unique(resized).tolist() == [0, 1, 2, 3, 4, 5, 255]
    assert all(85 <= (resized[:, -1] == one).sum() <= 86 for one in range(6))


def test_wrong_files(tmp_path):
    path = tmp_path / "one.png"
    write_labels(path, np.zeros((4, 5), np.uint8), "coco-stuff-171")
    with pytest.raises(ImageError, match=r"one\.png counts coco-stuff-171, and the metric coco-panoptic-133"):
        load_labels(path, classes="coco-panoptic-133")
    pil.fromarray(np.zeros((4, 5), np.uint8)).save(path)
    assert load_labels(path).shape == (4, 5)
    with pytest.raises(ImageError, match="classes of a list that it does not name"):
        load_labels(path, classes="coco-panoptic-133")
    pil.fromarray(np.zeros((4, 5, 3), np.uint8)).save(path)
    with pytest.raises(ImageError, match="this is RGB"):
        load_labels(path)
    with pytest.raises(ImageError, match="cannot read"):
        load_labels(tmp_path / "two.png")
    (tmp_path / "three.png").write_bytes(b"not a PNG")
    with pytest.raises(ImageError, match="cannot read"):
        load_labels(tmp_path / "three.png")
    with pytest.raises(ImageError, match="counts 0 to 132, found 133"):
        write_labels(path, np.full((2, 2), 133, np.uint8), "coco-panoptic-133")
    with pytest.raises(ImageError, match="uint8"):
        write_labels(path, np.zeros((2, 2), np.int64), "coco-panoptic-133")
