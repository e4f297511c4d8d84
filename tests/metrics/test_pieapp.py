"""PieAPP with random weights in the published layout: equal to the formula written out; its licence comes first."""

from __future__ import annotations

import numpy as np
import pytest

from rdpbench.errors import MetricError, MissingNeed
from rdpbench.metrics import pieapp
from rdpbench.metrics.pieapp import CARD, Licence, PieAPPDense, PieAPPSparse
from rdpbench.networks import held


def by_hand(tensors, x, y, stride):
    """Patch by patch through torch's modules, differences of features first, as the paper says; sums in float64."""
    import torch
    from torch import nn

    def features(patch):
        values, kept = torch.tensor(patch).permute(2, 0, 1)[None].float(), []
        for number in range(1, 12):
            weight = tensors[f"conv{number}.weight"]
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            layer.load_state_dict({part: tensors[f"conv{number}.{part}"] for part in ("weight", "bias")})
            values = nn.ReLU()(layer(values))
            if number in (2, 4, 6, 8, 10):
                values = nn.MaxPool2d(2, 2)(values)
            if number in (3, 5, 7, 9, 11):
                kept.append(values.flatten())
        return torch.cat(kept), kept[-1]

    def dense(name, values):
        return tensors[f"{name}.weight"] @ values + tensors[f"{name}.bias"]

    errors, weights = [], []
    with torch.no_grad():
        for top in range(0, x.shape[0] - 63, stride):
            for left in range(0, x.shape[1] - 63, stride):
                (whole_x, last_x), (whole_y, last_y) = (
                    features(image[top : top + 64, left : left + 64].copy()) for image in (x, y)
                )
                error = 0.01 * dense("fc2_score", dense("fc1_score", whole_x - whole_y).relu())
                scale, shift = (tensors[f"ref_score_subtract.{part}"] for part in ("weight", "bias"))
                errors.append((error * scale + shift).item())
                weights.append(dense("fc2_weight", dense("fc1_weight", last_x - last_y).relu()).item() + 1e-6)
    return np.dot(errors, weights) / np.sum(weights), len(errors)


@pytest.mark.parametrize(
    ("cls", "size", "patches"), [(PieAPPSparse, (64 + 27, 64 + 60), 2 * 3), (PieAPPDense, (64 + 6, 64 + 11), 2 * 2)]
)
def test_the_formula_written_out(pieapp_tensors, photograph, compress, cls, size, patches):
    x = photograph[60 : 60 + size[0], 180 : 180 + size[1]]
    metric = cls(pieapp_tensors)
    prepared = metric.prepare(x)
    assert len(prepared.content.score) == patches
    same = metric.score(prepared, x)
    for quality in (5, 50):
        y = compress(x, quality)
        expected, count = by_hand(pieapp_tensors, x, y, cls.stride)
        assert count == patches
        # Beside what identical images score, which random weights make large.
        assert abs(expected - same) > 1e-4
        assert metric.score(prepared, y) == pytest.approx(expected, abs=1e-3 * abs(expected - same))


def test_identical_images_score_the_constant(pieapp_tensors, photograph):
    """What is left without any difference: both fully connected stacks on zeros."""
    error = 0.01 * (
        pieapp_tensors["fc2_score.weight"] @ pieapp_tensors["fc1_score.bias"].relu() + pieapp_tensors["fc2_score.bias"]
    )
    expected = error * pieapp_tensors["ref_score_subtract.weight"] + pieapp_tensors["ref_score_subtract.bias"]
    metric = PieAPPSparse(pieapp_tensors)
    x = photograph[:100, :100]
    assert metric.score(metric.prepare(x), x) == pytest.approx(expected.item(), rel=1e-6)


def test_batches_and_order_change_nothing(pieapp_tensors, photograph, compress, monkeypatch):
    x = photograph[60:160, 100:230]
    metric = PieAPPSparse(pieapp_tensors)
    reconstructions = [compress(x, quality) for quality in (10, 70)]
    prepared = metric.prepare(x)
    forth = [metric.score(prepared, y) for y in reconstructions]
    assert [metric.score(prepared, y) for y in reversed(reconstructions)] == forth[::-1]
    monkeypatch.setattr(pieapp, "BATCH", 4)
    assert [metric.score(metric.prepare(x), y) for y in reconstructions] == pytest.approx(forth, rel=1e-5)


def test_only_the_published_layout_is_taken(pieapp_tensors):
    import torch

    with pytest.raises(MetricError, match=r"conv9\.bias: None instead of \(256,\)"):
        PieAPPSparse({name: tensor for name, tensor in pieapp_tensors.items() if name != "conv9.bias"})
    with pytest.raises(MetricError, match=r"conv12\.bias: \(1,\) instead of None"):
        PieAPPSparse(pieapp_tensors | {"conv12.bias": torch.zeros(1)})
    with pytest.raises(MetricError, match=r"ref_score_subtract\.weight: \(1, 1\) instead of \(1,\)"):
        PieAPPSparse(pieapp_tensors | {"ref_score_subtract.weight": torch.zeros(1, 1)})


def test_without_the_licence_nothing_is_read(monkeypatch):
    monkeypatch.setenv("RDPBENCH_ACCEPT", "something, else")
    for cls in (PieAPPSparse, PieAPPDense):
        said = cls.needs[0].missing()
        for part in ("NON-COMMERCIAL", "github.com/prashnani", "export RDPBENCH_ACCEPT=something,else,pieapp"):
            assert part in said
        with pytest.raises(MissingNeed, match="NON-COMMERCIAL"):
            cls().prepare(np.zeros((64, 64, 3), np.uint8))
        assert "non-commercial" in cls.source
    monkeypatch.setenv("RDPBENCH_ACCEPT", "else, pieapp")
    assert PieAPPSparse.needs[0].missing() is None
    assert Licence("other", "MIT", "page").missing() is not None


def test_with_it_the_file_is_wanted_and_one_flipped_byte_found(pieapp_tensors, tmp_path, monkeypatch):
    import torch

    for name in ("TORCH_HOME", "RDPBENCH_CACHE", "XDG_CACHE_HOME", "HF_HOME", "RDPBENCH_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("RDPBENCH_ACCEPT", "pieapp")
    held.forget()
    image = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(MissingNeed, match=r"'pieapp-v0\.1' are not on this machine") as caught:
        PieAPPSparse().prepare(image)
    assert "NON-COMMERCIAL" in str(caught.value)
    path = tmp_path / CARD.file
    small = {name: tensor for name, tensor in pieapp_tensors.items() if name != "fc1_score.weight"}
    torch.save(small, path)
    with pytest.raises(MetricError, match=r"fc1_score\.weight: None instead of \(512, 120832\)"):
        PieAPPSparse().prepare(image)  # read, pinned and found wanting
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(MissingNeed, match=r"is not the file that .*weights\.lock names"):
        PieAPPSparse().prepare(image)
