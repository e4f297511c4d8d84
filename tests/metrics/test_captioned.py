"""Caption similarity: texts through the arrays of set metrics, by a real captioning class at a tiny size."""

from __future__ import annotations

import numpy as np
import pytest

from rdpbench.errors import MetricError
from rdpbench.metrics.captioned import FEATURES, METRICS, bleu4, cider_d

TRUE = ["a dog on the beach", "two men ride a red bus", "a plate of food on a table"]
BLEU4BLIP2, CIDErDBLIP2 = METRICS["caption/bleu-4/blip2"], METRICS["caption/cider-d/blip2"]
BLIP2Captions = FEATURES["blip2"]
FOUND = ["a dog on the sand", "two men on a bus", "a plate of food"]


def arrays(texts: list[str]) -> list[np.ndarray]:
    return [np.frombuffer(text.encode(), np.uint8) for text in texts]


class Says:
    """A captioner that names an image's mean: what matters here is the way of a text through the arrays."""

    def __call__(self, image: np.ndarray) -> tuple[str, float]:
        return f"größe {image.mean():.0f}", 0.1


def test_values_are_those_of_the_corpus_statistics() -> None:
    single = [[text] for text in TRUE]
    assert BLEU4BLIP2().reduce(arrays(TRUE), arrays(FOUND)).value == bleu4(FOUND, single)
    assert CIDErDBLIP2().reduce(arrays(TRUE), arrays(FOUND)).value == cider_d(FOUND, single).value
    assert CIDErDBLIP2().reduce(arrays(TRUE), arrays(FOUND)).value < 10


def test_texts_survive_the_arrays() -> None:
    features = BLIP2Captions(Says())
    images = [np.full((4, 4, 3), value, np.uint8) for value in (3, 200)]
    made = features.extract(images)
    assert [one.tobytes().decode() for one in made] == ["größe 3", "größe 200"]


def test_an_empty_caption_is_a_caption() -> None:
    class Silent:
        def __call__(self, image: np.ndarray) -> tuple[str, float]:
            return "", 0.1

    [made] = BLIP2Captions(Silent()).extract([np.zeros((2, 2, 3), np.uint8)])
    assert made.size
    assert BLEU4BLIP2().reduce(arrays(TRUE), [made, *arrays(FOUND[1:])]).value < bleu4(FOUND, [[t] for t in TRUE])


@pytest.mark.parametrize("wrong", [np.zeros((1, 3), np.float32), np.zeros((2, 2), np.uint8)])
def test_other_features_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(MetricError, match="features of another kind"):
        BLEU4BLIP2().reduce(arrays(TRUE[:1]), [wrong])
