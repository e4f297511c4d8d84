"""BLEU-4 and CIDEr-D: coco-caption's numbers, hand values, torchmetrics; tokens as Stanford's program gives them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rdpbench.errors import MetricError
from rdpbench.metrics.captioned import bleu4, bleu_counts, bleu_of, cider_d, tokens

# Left: a caption. Right: what PTBTokenizer of CoreNLP 3.4.1 (-preserveLines -lowerCase) gave for it, less the
# punctuation that coco-caption drops.
JAVA = [
    ("A man's dog doesn't sit on the dogs' bed.", "a man 's dog does n't sit on the dogs bed"),
    (
        "It's a well-lit, two-story house (with a red door)!",
        "it 's a well-lit two-story house -lrb- with a red door -rrb-",
    ),
    ('"Stop" sign at 5:30 p.m. on 5th St. in the U.S.', "stop sign at 5:30 p.m. on 5th st. in the u.s."),
    (
        "They're gonna eat; I'd say they've 3/4 of a pizza -- maybe 1,000 of them...",
        "they 're gon na eat i 'd say they 've 3/4 of a pizza maybe 1,000 of them",
    ),
    ("A cat can't jump & won't try: it cannot.", "a cat ca n't jump & wo n't try it can not"),
    ("Mr. Smith's $5.00 coffee cup @ Starbucks #1", "mr. smith 's $ 5.00 coffee cup @ starbucks # 1"),
    (
        "a 1950's style diner, mid-air, black-and-white photo",
        "a 1950 's style diner mid-air black-and-white photo",
    ),
    (
        "A sign reads 'no parking' near rock 'n' roll bar",
        "a sign reads no parking near rock 'n' roll bar",
    ),
    ("a t-shirt, a TV/VCR combo, and 50% off", "a t-shirt a tv/vcr combo and 50 % off"),
    (
        "two men [one with hat] {standing} on a <b>street</b>",
        "two men -lsb- one with hat -rsb- -lcb- standing -rcb- on a <b> street </b>",
    ),
    ("a baby elephant   walking    with\ttabs", "a baby elephant walking with tabs"),
    ("café naïve résumé in São Paulo", "café naïve résumé in são paulo"),
    ("a plate of food, including: rice, beans & more?!", "a plate of food including rice beans & more ?!"),
    ("wanna gotta gimme lemme dunno 'tis 'twas", "wan na got ta gim me lem me dunno 't is 't was"),
    ("hot dog w/ ketchup and/or mustard", "hot dog w / ketchup and/or mustard"),
    ("a bus that says N.Y.C. on it, route no. 7.", "a bus that says n.y.c. on it route no. 7"),
    (
        "four-way stop sign; 4-way; 4x4 truck; 20th century",
        "four-way stop sign 4-way 4x4 truck 20th century",
    ),
    (
        "snow-covered hill, a 3D image, 2 feet tall 6'2\"",
        "snow-covered hill a 3d image 2 feet tall 6 2",
    ),
    (
        "“smart quotes” and ‘single’ it’s – dash — em",
        "smart quotes and single it 's dash em",
    ),
    ("a cat - on a mat -- or --- not", "a cat on a mat or not"),
    ("O'Brien's pub at o'clock", "o'brien 's pub at o'clock"),
    (
        "y'all've rock'n'roll ma'am let's",
        "y' all 've rock 'n' roll ma'am let 's",
    ),
    (
        "I'm sure she'll've gone where'd shouldn't've",
        "i 'm sure she 'll 've gone where 'd should n't 've",
    ),
    (
        "30-year-old woman, 12:00, 1990s, '90s, $20, €5, £3",
        "30-year-old woman 12:00 1990s '90s $ 20 $ 5 # 3",
    ),
    ("a.m. vs. etc. dr. st. ave. blvd. inc.", "a.m. vs. etc. dr. st. ave. blvd. inc."),
    (
        "a woman in a jacket,holding a dog.sitting",
        "a woman in a jacket holding a dog.sitting",
    ),
    ("under_score and a*b and a+b=c ~ ^ |", "under_score and a * b and a + b = c ~ ^ |"),
    ("email me@site.com or www.site.com http://a.b/c", "email me@site.com or www.site.com http://a.b/c"),
    ("", ""),
    (" . , ", ""),
]

CAPTIONS = [
    "a dog on the beach",
    "two men ride a red bus",
    "a plate of food with a fork and a knife",
    "a cat",
    "A man's dog doesn't sit on the dogs' bed.",
]
REFERENCES = [
    ["a dog on the sand"],
    ["two men ride a bus"],
    ["a plate of food with a knife on the table"],
    ["a cat", "the black cat sits"],
    ["a dog does not sit on a bed", "the man's dog sleeps"],
]


@pytest.mark.parametrize(("caption", "expected"), JAVA)
def test_tokens_are_those_of_the_java_program(caption, expected):
    assert tokens(caption) == expected.split()


@pytest.mark.parametrize(
    ("count", "bleu", "cider"),
    [(2, 0.5942170745659398, 6.477911609378648), (5, 0.4570637323535247, 4.474253768930193)],
)
def test_coco_caption_gives_the_same(count, bleu, cider):
    """Computed by pycocoevalcap 1.2 on the tokens of these captions."""
    captions, references = CAPTIONS[:count], REFERENCES[:count]
    assert bleu4(captions, references) == pytest.approx(bleu, rel=1e-12)
    assert cider_d(captions, references).value == pytest.approx(cider, rel=1e-12)


def test_coco_caption_gives_the_same_per_image():
    assert cider_d(CAPTIONS, REFERENCES).images.tolist() == pytest.approx(
        [5.24145713317, 6.28915655209, 5.96423119355, 3.18051068583, 1.69591328002], rel=1e-10
    )


def test_equals_torchmetrics():
    pytest.importorskip("torch")
    from torchmetrics.functional.text import bleu_score

    split = [" ".join(tokens(one)) for one in CAPTIONS]
    known = [[" ".join(tokens(one)) for one in several] for several in REFERENCES]
    assert bleu4(CAPTIONS, REFERENCES) == pytest.approx(float(bleu_score(split, known)), rel=1e-6)


def test_bleu_by_hand():
    """Precisions 5/6, 4/5, 3/4, 2/3 and no brevity penalty: the caption is longer than its reference."""
    caption, reference = "a man rides a horse fast", "a man rides a horse"
    assert bleu4([caption], [[reference]]) == pytest.approx((5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25, rel=1e-8)
    # The other way round all matches, and the penalty is exp(1 - 6/5).
    assert bleu4([reference], [[caption]]) == pytest.approx(math.exp(-1 / 5), rel=1e-8)


def test_bleu_of_a_corpus_is_not_the_mean_of_images():
    together = bleu4(CAPTIONS, REFERENCES)
    alone = [bleu4([caption], [several]) for caption, several in zip(CAPTIONS, REFERENCES, strict=True)]
    assert abs(together - np.mean(alone)) > 0.1


def test_bleu_counts_add_up_in_any_order():
    counts = [bleu_counts(*pair) for pair in zip(CAPTIONS, REFERENCES, strict=True)]
    assert bleu_of(np.sum(counts[::-1], axis=0)) == bleu4(CAPTIONS, REFERENCES)
    assert counts[0].dtype == np.int64


def test_equal_captions_are_the_best_there_is():
    captions = ["a dog runs on the wide beach", "two men ride a red bus", "a plate of food with a fork"]
    known = [[caption] for caption in captions]
    assert bleu4(captions, known) == pytest.approx(1, abs=1e-6)
    assert cider_d(captions, known).images.tolist() == pytest.approx([10, 10, 10])


def test_captions_without_a_common_word_are_the_worst():
    captions, known = ["some people", "one kite"], [["a dog on the beach"], ["two men ride a bus"]]
    assert bleu4(captions, known) < 1e-9
    assert cider_d(captions, known).value == 0
    assert bleu4(["", ""], known) == 0
    assert cider_d(["", ""], known).value == 0


def test_cider_by_hand():
    """Two images, single words: only runs of one word count, each known to one image: weight log 2."""
    found = cider_d(["dog", "red bus"], [["dog"], ["bus"]])
    # 'dog': cosine 1 for one of four lengths. 'red bus': cosine 1/sqrt 2, and one pair of words too many.
    assert found.images.tolist() == pytest.approx([10 / 4, 10 / 4 / math.sqrt(2) * math.exp(-1 / 72)], rel=1e-12)


def test_words_that_all_images_share_count_nothing():
    found = cider_d(["a dog", "a bus"], [["a cat"], ["a kite"]])
    assert found.value == 0


def test_a_repeated_word_counts_as_often_as_the_reference_has_it():
    assert bleu_counts("the the the", ["the cat on the mat"]).tolist() == [2, 0, 0, 0, 3, 2, 1, 0, 3, 5]


@pytest.mark.parametrize("metric", [bleu4, cider_d])
@pytest.mark.parametrize(
    ("captions", "references", "message"),
    [
        ([], [], "no image in the set"),
        (["a dog"], [["a dog"], ["a cat"]], "1 captions and references for 2 images"),
        (["a dog", "a cat"], ["a dog", "a cat"], "references of image 0 are a list of captions, found 'a dog'"),
        (["a dog", "a cat"], [["a dog"], []], "references of image 1"),
    ],
)
def test_what_is_refused(metric, captions, references, message):
    with pytest.raises(MetricError, match=message):
        metric(captions, references)


def test_cider_needs_two_images():
    with pytest.raises(MetricError, match="at least 2 images"):
        cider_d(["a dog"], [["a dog"]])
