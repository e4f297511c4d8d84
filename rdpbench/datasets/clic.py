"""CLIC, the Challenge on Learned Image Compression: at least five sets that papers call by this one name.

=========================  ======  ==================================================================================
set                        images  is
=========================  ======  ==================================================================================
clic2020-test                 428  mobile and professional; HiFiC, MS-ILLM, TACO and most generative codecs
clic2020-mobile-test          178  its mobile part
clic2020-professional-test    250  its professional part; what CompressAI calls CLIC professional, as it seems
clic2020-professional-valid    41  what many learned codecs call CLIC
clic2020-mobile-valid          61
clic2020-train              1,633  the reference side of Text+Sketch's unpaired FID
clic2021-test                  60  professional; NeuralCompression's loader calls it CLIC 2020, ELIC's paper "valid"
clic2022-test                  30
=========================  ======  ==================================================================================

Published are the sha256 of the archives of 2020 and the md5 of that of 2021; for 2022 nobody published a hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from rdpbench.datasets.fetching import OfficialArchive
from rdpbench.datasets.official import Official, Release, published_list

_ETH = "https://data.vision.ee.ethz.ch/cvl/clic/"
_GOOGLE = "https://storage.googleapis.com/"


def _archive(
    url: str, folder: str, count: int | None, size: int | None = None, sha256: str = "", md5: str = ""
) -> OfficialArchive:
    # Archives differ in their folders; no file name occurs in two of them.
    members, tag = r"(?:[^/]+/)*([^/]+\.png)", folder.partition("-")[0]
    return OfficialArchive(url, folder, count, members, size, sha256 or None, md5 or None, tag=tag)


_MOBILE_TEST = _archive(
    _ETH + "test/CLIC2020Mobile_test.zip",
    "mobile-test",
    178,
    721_789_976,
    "2025f07a6c652270e534640de4271feef3b3dd3260beed4ac4821064837aa732",
)
_PROFESSIONAL_TEST = _archive(
    _ETH + "test/CLIC2020Professional_test.zip",
    "professional-test",
    250,
    891_643_809,
    "857df244fc2bfa5da28d4c66bf0db16ee99bfc79eb807be8afa89cd507852884",
)
_MOBILE_VALID = _archive(
    _ETH + "mobile_valid_2020.zip",
    "mobile-valid",
    61,
    236_556_531,
    "ff0280382eeb32fdceb28c81a7f47ac9ad86d933ebe901680845635d04e47a10",
)
_PROFESSIONAL_VALID = _archive(
    _ETH + "professional_valid_2020.zip",
    "professional-valid",
    41,
    134_834_429,
    "00be38092ade2ab5163b65f7f6523d46c7bca147007f559adbb02c0afc236b7d",
    "7111ee240435911db04dbc5f40d50272",
)
_MOBILE_TRAIN = _archive(
    _ETH + "mobile_train_2020.zip",
    "mobile-train",
    None,
    4_042_923_971,
    "4bf9d890e6785426fb41cb4f43df3d8cd6db25fafcc76fc1eb629141166d6529",
)
_PROFESSIONAL_TRAIN = _archive(
    _ETH + "professional_train_2020.zip",
    "professional-train",
    585,
    2_003_385_131,
    "54a2a684b5cbd0db91770a8695efb774fed1f612194fee68bceaf6b1c48e5d5f",
    "a6845cac88c3dd882246575f7a2fc5f9",
)
_TEST_2021 = _archive(
    _GOOGLE + "clic2021_public/professional_test_2021.zip",
    "professional-test-2021",
    60,
    md5="4476b708ea4c492505dd70061bebe202",
)
_TEST_2022 = _archive(_GOOGLE + "clic2022_public/test_sets/image_test_30.zip", "test-2022", 30)

_LISTED = published_list("clic2020-test")
_release = partial(
    Release,
    family="clic",
    pattern=r"[^/.][^/]*\.png",
    licence="none stated; the professional images are photographs from Unsplash",
    page="https://clic.compression.cc/2021/tasks/index.html",
    varied=True,
)


@dataclass(frozen=True)
class CLIC(Official):
    """The sets of CLIC; ``split`` is a set's name without ``clic``.

    >>> len(CLIC("2020-test"))
    428
    """

    # The digests of names are of the images that Cool-Chic's published tables name: no list of ours, a check of yours.
    # The patch totals are HiFiC's protocol, counted by others: docs/datasets.md.
    RELEASES: ClassVar[Mapping[str, Release]] = {
        "2020-test": _release(
            "clic2020-test",
            "CLIC 2020 test, mobile and professional, 428 images",
            428,
            (_MOBILE_TEST, _PROFESSIONAL_TEST),
            listed=_LISTED,
            among=_LISTED,
            patches=28_650,
        ),
        "2020-mobile-test": _release(
            "clic2020-mobile-test", "CLIC 2020 mobile test, 178 images", 178, (_MOBILE_TEST,), among=_LISTED
        ),
        "2020-professional-test": _release(
            "clic2020-professional-test",
            "CLIC 2020 professional test, 250 images",
            250,
            (_PROFESSIONAL_TEST,),
            among=_LISTED,
            patches=16_626,
        ),
        "2020-professional-valid": _release(
            "clic2020-professional-valid",
            "CLIC 2020 professional validation, 41 images",
            41,
            (_PROFESSIONAL_VALID,),
            names_sha256="788306c11094099e782fa60e8cd9a05e2ae3b5c11869bf066515de87baf87269",
        ),
        "2020-mobile-valid": _release(
            "clic2020-mobile-valid", "CLIC 2020 mobile validation, 61 images", 61, (_MOBILE_VALID,)
        ),
        "2020-train": _release(
            "clic2020-train",
            "CLIC 2020 train, mobile and professional, 1,633 images",
            1633,
            (_MOBILE_TRAIN, _PROFESSIONAL_TRAIN),
        ),
        "2021-test": _release("clic2021-test", "CLIC 2021 professional test, 60 images", 60, (_TEST_2021,)),
        "2022-test": _release(
            "clic2022-test",
            "CLIC 2022 test, 30 images",
            30,
            (_TEST_2022,),
            names_sha256="6b11954ca5861feeef20c501f81f1342879e7290ffe413ccebb86642b7a601d5",
        ),
    }
