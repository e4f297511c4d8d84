"""What the sources of published numbers mean, source by source: data for ``build_published.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NAMES = {"ms_ssim": "ms-ssim", "ms_ssim_db": "ms-ssim-db", "cider_d": "cider-d", "bleu4": "bleu-4", "d_clip": "dclip"}
NAMES |= {"psnr_of_mean_mse": "psnr-pooled", "clip_score": "clip-score", "fid_swav": "fid-swav"}
NAMES |= {f"{what}_{unit}": f"{what}-{unit}" for what in ("encode", "decode", "total") for unit in ("s", "ms")}

DATASETS = {
    "kodak": "kodak",
    **dict.fromkeys(("tecnick_1200x1200", "tecnick"), "tecnick"),
    "clic2020_mobile_test?": "clic2020-mobile@compressai",
    "clic2020_professional_test?": "clic2020-professional@compressai",
    "clic2020_test_428": "clic2020-test",
    "clic2020_test": "clic2020@diffeic",
    "clic2020_test? (vs resized CLIC2020 train)": "clic2020-test",
    "clic2020_professional_valid_41": "clic2020-professional-valid",
    "clic2020_professional_valid_41?": "clic2020-professional-valid",
    **dict.fromkeys(("clic2021_professional_test", "CLIC2021-test(60)"), "clic2021-test"),
    **dict.fromkeys(("div2k_valid", "DIV2K-val(100)"), "div2k-valid"),
    "mscoco_30k_512": "coco-30k-perco",
    "mscoco_restval_30504": "coco-30k-taco",
    **dict.fromkeys(("mscoco_val_100_random", "mscoco_100_random"), "coco-100@taco"),
}

LEVELS = {"low": 1, "med": 2, "high": 3, "lo": 1, "mi": 2, "hi": 3}


@dataclass(frozen=True)
class Rule:
    """What a row of a source means, if its ``codec|variant|place`` is of this pattern.

    ``codec`` and ``variant`` are templates over the pattern's groups; the group ``rate`` is the rate, ``setting``
    its name. ``metrics`` maps families to names of metrics; families that it lacks are the source's ``default``.
    """

    pattern: str
    codec: str
    variant: str = ""
    setting: str = ""
    bits: str = ""
    metrics: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """One source: where its rows are in the table, what they mean."""

    where: str
    """How its rows' ``source`` begins; what follows is the place."""
    title: str
    counted: str
    """In words."""
    rules: tuple[Rule, ...]
    """The first that fits counts."""
    bits: str = "unstated"
    default: str = "@unstated"
    """What a family's name gets where no protocol of ours is known to be the same: ``psnr@unstated``."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    protocol: str = "as-is"
    shown: str = ""
    """What ``sources.csv`` says instead of ``where``."""


EIGHT_BIT = {"psnr": "psnr", "ms-ssim": "ms-ssim"}
PERCEPTUAL = {"lpips": "lpips/alex", "dists": "dists"}
PATCHES = {"fid": "fid/hific-patch", "kid": "kid/hific-patch"}
UNSTATED = {"psnr": "psnr@unstated", "ms-ssim": "ms-ssim@unstated", "ms-ssim-db": "ms-ssim-db@unstated"}
UNSTATED |= {"psnr-pooled": "psnr-pooled@unstated"}
FLOAT = {"psnr": "psnr@float", "ms-ssim": "ms-ssim@float"}
LUMA = {"psnr_y": "psnr@y", "ms_ssim_y": "ms-ssim@y"}

ORIGINS: dict[str, Origin] = {
    "compressai": Origin(
        "InterDigitalInc/CompressAI@869a9f5d4126:",
        "CompressAI's stored results",
        "files of the classical codecs; coded strings of the learned ones, without shape and size",
        (
            Rule(r"compressai-(?P<c>[\w-]+?)_mse(_ans)?_(?P<d>\w+)\|.*8bit-", "{c}", "{d}, 8-bit", metrics=EIGHT_BIT),
            Rule(r"compressai-(?P<c>[\w-]+?)_mse_(?P<d>\w+)\|", "{c}", "{d}", metrics=FLOAT),
            Rule(r"compressai-(?P<c>[\w-]+?)_ms-ssim_(?P<d>\w+)\|", "{c}-msssim", "{d}", metrics=FLOAT),
            Rule(r"(?P<c>[\w-]+-vbr)-ans\|", "{c}", metrics=FLOAT),
            Rule(r"paper-elic2022_(?P<m>[\w-]+)\|", "elic", "paper {m}", bits="unstated", metrics=UNSTATED),
            Rule(
                r"paper-(?P<c>[\w-]+?)(_(?P<m>mse|ms-ssim))?\|", "{c}", "paper {m}", bits="unstated", metrics=UNSTATED
            ),
            Rule(r"BPG\|", "bpg", "4:4:4 x265", bits="file", metrics=EIGHT_BIT),
            Rule(r"(?P<c>VTM|HM|AV1|JPEG|JPEG2000|WebP)\|", "{c}", bits="file", metrics=EIGHT_BIT),
        ),
        bits="payload",
        default="@compressai",
    ),
    "tensorflow": Origin(
        "tensorflow/compression@dda8cb4c4364:results/",
        "Rate-distortion data of tensorflow/compression",
        "files of the classical codecs; not stated for the others",
        (
            Rule(r"(?P<c>BPG|JPEG|JPEG2000|WebP)\|(?P<v>[\w-]+) ", "{c}", "{v}", bits="file", metrics=EIGHT_BIT | LUMA),
            Rule(r"(?P<c>[\w-]+)\|", "{c}", metrics=UNSTATED | LUMA),
        ),
    ),
    "hific": Origin(
        "tensorflow/compression@dda8cb4c4364:models/hific/",
        "HiFiC, the authors' table (NeurIPS 2020)",
        "the file that the official program writes",
        (Rule(r"HiFiC\|hific-(?P<rate>lo|mi|hi)\|", "hific", "", "level"),),
        bits="file",
        default="@hific",
        metrics=EIGHT_BIT | PERCEPTUAL | PATCHES,
    ),
    "neuralcompression": Origin(
        "facebookresearch/NeuralCompression@3f122808255a:",
        "MS-ILLM, the authors' table (ICML 2023)",
        "the pickled object that holds the strings: about 121 bytes more than they have",
        (
            Rule(r"MS-ILLM\|msillm_quality_(?P<rate>\d)\|", "ms-illm", "", "quality"),
            Rule(r"No-GAN\|noganms #(?P<rate>\d) ", "no-gan", "", "point"),
        ),
        bits="object",
        default="@neuralcompression",
        metrics=EIGHT_BIT | PERCEPTUAL | PATCHES,
    ),
    "diffeic": Origin(
        "huai-chang/DiffEIC@9c21915746d3:",
        "DiffEIC's comparison of eleven codecs",
        "differs by codec: files of VTM and BPG, pickled objects of MS-ILLM, strings over padded pixels for DiffEIC",
        (
            Rule(r"VTM\|setting=(?P<rate>\d+)\|", "vtm", "", "qp", "file"),
            Rule(r"BPG\|setting=(?P<rate>\d+)\|", "bpg", "", "qp", "file"),
            Rule(r"HiFiC\|setting=(?P<rate>\w+)\|", "hific", "retrained", "level"),
            Rule(r"MS-ILLM\|setting=quality_(?P<rate>\d)\|", "ms-illm", "", "quality", "object"),
            Rule(r"ELIC\|setting=(?P<rate>\d)\|", "elic", "retrained", "point"),
            Rule(r"PerCo \(SD\)\|setting=(?P<rate>\d)\|", "perco-sd", "", "point"),
            Rule(r"Text-Sketch PICS\|lambda_sketch=(?P<rate>[\d.]+)\|", "pics", "", "lambda", "object"),
            Rule(r"VQIR\|setting=(?P<rate>\d+)x\|", "vqir", "", "downsampling"),
            Rule(r"SD Encoder\|", "sd-autoencoder", "", "", "none"),
            Rule(r"DiffEIC\|setting=(?P<rate>\d)\|", "diffeic", "", "point", "payload"),
            Rule(r"RDEIC-(?P<v>\d)\|setting=(?P<rate>\d)\|", "rdeic", "{v} steps", "point", "payload"),
        ),
        default="@diffeic",
        metrics=EIGHT_BIT | PERCEPTUAL,
    ),
    "crdr": Origin(
        "iwa-shi/CRDR@6eeec5d90b6d:",
        "CRDR, the authors' tables",
        "not stated",
        (
            Rule(r"CRDR\|q=(?P<rate>[\d.]+) (?P<v>beta=[\d.]+) \(", "crdr", "{v}, reproduced", "q"),
            Rule(r"CRDR\|q=(?P<rate>[\d.]+) (?P<v>beta=[\d.]+)\|", "crdr", "{v}", "q"),
        ),
        default="@crdr",
        metrics=EIGHT_BIT | PERCEPTUAL,
    ),
    "dc-vic": Origin(
        "iwa-shi/DC_VIC@3eb4e7823f67:",
        "DC-VIC, the authors' tables",
        "not stated",
        (Rule(r"DC-VIC\|dc_vic_(?P<v>\w+) q=(?P<rate>\d)\|", "dc-vic", "{v}", "q"),),
        default="@dc-vic",
        metrics=EIGHT_BIT | PERCEPTUAL,
    ),
    "stablecodec": Origin(
        "LuizScarlet/StableCodec@e7994cf5e180:",
        "StableCodec, the authors' results",
        "a file of the strings and latent shape, without the image's size",
        (Rule(r"StableCodec\|", "stablecodec"),),
        bits="payload",
        default="@pyiqa",
        metrics={"psnr": "psnr"} | PERCEPTUAL | PATCHES,
    ),
    "aeic": Origin(
        "LuizScarlet/AEIC@c1e8ad0d13d2:",
        "AEIC, the authors' results",
        "not stated: the script can print file sizes or estimates",
        (Rule(r"AEIC-(?P<v>ME|SE)\|", "aeic", "{v}"),),
        default="@pyiqa",
        metrics={"psnr": "psnr"} | PERCEPTUAL | PATCHES,
    ),
    "c3": Origin(
        "google-deepmind/c3_neural_compression@e63e7519641d:",
        "Baselines that C3 was compared with, and C3",
        "not stated; gathered by C3's authors from many places",
        (
            Rule(r"(?P<c>BPG)(?P<v>420|444)?\|", "{c}", "{v}", bits="file"),
            Rule(r"(?P<c>JPEG|JPEG2000|VTM)\|", "{c}", bits="file"),
            Rule(r"C3 \(Adaptive\)\|", "c3", "adaptive"),
            Rule(r"COOL-CHIC(?P<v>v2)?\|", "cool-chic", "{v}"),
            Rule(r"BMS\|", "bmshj2018-hyperprior"),
            Rule(r"MBT\|", "mbt2018"),
            Rule(r"CST\|.*CompressAI", "cheng2020-anchor"),
            Rule(r"CST\|", "cheng2020", "authors'"),
            Rule(r"(?P<c>[\w+-]+)\|", "{c}"),
        ),
        metrics=UNSTATED,
    ),
    "cool-chic": Origin(
        "Orange-OpenSource/Cool-Chic@a6fe38a414dd:",
        "Cool-Chic, means of the authors' tables per image",
        "not stated",
        (Rule(r"Cool-Chic\|(?P<v>v[\d.]+) lambda=(?P<rate>[\d.]+)\|", "cool-chic", "{v}", "lambda"),),
        metrics=UNSTATED,
    ),
    "edgecompression": Origin(
        "Ozen-Rey/EdgeCompression-Benchmark-2026@dcae12c9c5be:",
        "EdgeCompression benchmark, a third party's",
        "files of the classical codecs and JPEG AI; coded strings of the others",
        (
            Rule(r"JPEG\|q=(?P<rate>\d+)\|", "jpeg", "", "quality", "file", {"psnr": "psnr"}),
            Rule(r"JPEG XL\|d=(?P<rate>[\d.]+)\|", "jpegxl", "", "distance", "file", {"psnr": "psnr"}),
            Rule(r"HEVC \(x265\)\|crf=(?P<rate>\d+)\|", "hevc", "", "crf", "file", {"psnr": "psnr"}),
            Rule(r"JPEG AI\|target_bpp=(?P<rate>[\d.]+)\|", "jpeg-ai", "", "target", "file"),
            Rule(r"(?P<c>DCAE|ELIC|LIC-TCM)\|lam=(?P<rate>[\d.]+)\|", "{c}", "", "lambda"),
            Rule(r"bmshj2018-hyperprior\?.*\|q=(?P<rate>\d)\|", "bmshj2018-hyperprior", "", "quality"),
            Rule(r"cheng2020\|q=(?P<rate>\d)\|", "cheng2020", "", "quality"),
        ),
        bits="payload",
        default="@edgecompression",
        metrics=UNSTATED | {"ms-ssim": "ms-ssim@edgecompression"},
    ),
    "gencodec": Origin(
        "microsoft/GenCodec@c49eb0d643cc:",
        "CoD, the table in GenCodec's README",
        "the rate that the table prints",
        (Rule(r"CoD\|CoD (?P<v>[^|]+)\|", "cod", "{v}"), Rule(r"MS-ILLM\|(?P<v>MS-ILLM[^|]*?) at ", "ms-illm", "{v}")),
        bits="nominal",
        default="@gencodec",
        protocol="512@gencodec",
    ),
    "elic": Origin(
        "JiangWeibeta/ELIC@b240a4ca3163:",
        "ELIC, numbers of its authors",
        "not stated",
        (Rule(r"ELIC\|(?P<v>elic[\w-]*?)_official", "elic", "{v}"),),
        metrics=UNSTATED,
    ),
    "mlic": Origin(
        "JiangWeibeta/MLIC@4aa9d2a512eb:",
        "MLIC, MLIC+ and MLIC++, the authors' results",
        "not stated",
        (
            Rule(r"MLIC\|mlicplusplus_mse\|", "mlic++"),
            Rule(r"MLIC\|mlicplus_mse\|", "mlic+"),
            Rule(r"MLIC\|mlic_mse\|", "mlic"),
        ),
        metrics=UNSTATED,
    ),
    "lic-tcm": Origin(
        "jmliu206/LIC_TCM@6c6d7a364817:",
        "LIC-TCM, the authors' table",
        "not stated: the script prints estimates unless asked for strings",
        (Rule(r"LIC-TCM\|(?P<v>\w+)\|", "lic-tcm", "{v}"),),
        metrics=UNSTATED,
    ),
    "stf": Origin(
        "Googolxx/STF@bbcfe3a48f19:",
        "STF and WACNN, the authors' results",
        "not stated",
        (
            Rule(r"STF/WACNN\|stf_(?P<v>mse|ms-ssim)_", "stf", "{v}"),
            Rule(r"STF/WACNN\|cnn_(?P<v>mse|ms-ssim)_", "wacnn", "{v}"),
        ),
        metrics=UNSTATED,
    ),
    "shallow-ntc": Origin(
        "mandt-lab/shallow-ntc@e0c48c7a6139:",
        "Shallow-NTC, the authors' results",
        "likelihoods: nothing is coded",
        (Rule(r"shallow-ntc\|(?P<v>[^|]+)\|", "shallow-ntc", "{v}"),),
        bits="estimated",
        default="@shallow-ntc",
        metrics=EIGHT_BIT,
    ),
    "control-gic": Origin(
        "lianqi1008/Control-GIC@e1c3afed9c52:",
        "Control-GIC, the table in its README",
        "not stated",
        (Rule(r"Control-GIC\|granularity \((?P<rate>[\d.]+),", "control-gic", "", "granularity"),),
        default="@control-gic",
    ),
    "text-sketch": Origin(
        "leieric/Text-Sketch@0666f7b56e23:",
        "Text + Sketch, comments of the evaluation scripts",
        "a target that a comment names",
        (Rule(r"Text-Sketch PICS\|lambda_sketch=(?P<rate>[\d.]+)\|", "pics", "", "lambda"),),
        bits="nominal",
        protocol="text-sketch-512",
        metrics={"fid": "fid/text-sketch", "kid": "kid/text-sketch"},
    ),
    "text-sketch-notebook": Origin(
        "leieric/Text-Sketch@d3638e2:",
        "Text + Sketch, the notebook behind the paper's figures (ICML 2023 workshop)",
        "of PIC and PICS the caption's Python object (33 bytes more than its bytes) and the sketch without its leading "
        "zeros; the candidate's index was free",
        (
            Rule(r"(?P<c>PICS?)\|point (?P<rate>\d)\|", "{c}", "", "point", "object"),
            Rule(r"HiFiC-retrained\|point (?P<rate>\d)\|", "hific", "retrained", "point"),
            Rule(r"Cheng2020-lowrate\|point (?P<rate>\d)\|", "cheng2020", "low rate, MS-SSIM", "point"),
        ),
        default="@text-sketch",
        protocol="text-sketch-512",
        metrics={"lpips": "lpips/alex", "dclip": "dclip/h14"},
    ),
    "taco": Origin(
        "seed 002 (TACO, arXiv 2403.02944) ",
        "TACO, numbers that the paper states (ICML 2024)",
        "of TACO the file with a header of 28 bytes; of the others not stated",
        (
            Rule(r"TACO\|captions=(?P<v>[^|]+)\|", "taco", "captions {v}", bits="file"),
            Rule(r"TACO\|", "taco", bits="file"),
            Rule(r"(?P<c>[\w-]+)\|", "{c}"),
        ),
        default="@taco",
        protocol="taco-256",
        shown="TACO, arXiv 2403.02944",
    ),
    "perco": Origin(
        "seed 003 (PerCo, arXiv 2310.10325) ",
        "PerCo, numbers that the paper states (ICLR 2024)",
        "indices of fixed length and the caption by zlib, without any header",
        (
            Rule(r"PerCo\|PerCo, guidance (?P<v>none|text\+spatial)\|", "perco", "guidance {v}"),
            Rule(r"PerCo\|PerCo, guidance text only \(default\)\|", "perco"),
            Rule(r"PerCo\|PerCo w/o quantisation\|", "perco", "without quantisation", bits="none"),
            Rule(r"PerCo\|LDM autoencoder", "perco-autoencoder", bits="none"),
        ),
        bits="payload",
        default="@perco",
        protocol="perco-512",
        metrics={"fid": "fid/perco-512", "clip-score": "clip-score/b32"},
        shown="PerCo, arXiv 2310.10325",
    ),
}
for _name, _where in (
    ("ftic", "qingshi9974/ICLR2024-FTIC@e0d488626d47:"),
    ("cca", "LabShuHangGU/CCA@c7088d297dda:"),
    ("dcae", "LabShuHangGU/DCAE@bd00306b07a6:"),
):
    _rule = Rule(rf"{_name.upper()}\|(?P<v>[\w-]+)\|", _name, "{v}")
    ORIGINS[_name] = Origin(_where, f"{_name.upper()}, the authors' table", "not stated", (_rule,), metrics=UNSTATED)

WHICH_CLIC = (
    "the repository says clic2020 only: VTM's 34.15 dB at 0.138 bpp fit the 250 test images, not the 41 of validation"
)
CROPS = (
    "probably crops of 768 x 768: MS-ILLM q3 has 0.1335 bpp and FID 7.10 here, 0.1206 and 2.65 in its authors' table"
)
DOUBTS: tuple[tuple[str, str, str], ...] = (
    ("compressai", r"clic2020-professional@compressai\|", WHICH_CLIC),
    ("compressai", r"clic2020-mobile@compressai\|", "the repository says clic2020 only: which split is not stated"),
    (
        "compressai",
        r"[^|]*\|(vtm|hm|av1)\|[^|]*\|psnr\|",
        "against the original after 8-bit YCbCr, not against RGB: 46.59 dB where today's code cannot pass 43.66",
    ),
    ("stf", r".*results/stf_ms-ssim_CLIC", "the file calls it psnr; the values are MS-SSIM in dB"),
    (
        "stf",
        r"clic2020-professional-valid\|",
        "the repository says CLIC only; C3 lists the MSE curve under these 41 images",
    ),
    ("elic", r"clic2021-test\|", "the paper calls the set CLIC Professional Valid; its author says CLIC 2021 test"),
    ("diffeic", r"(clic2020|tecnick)@diffeic\|", CROPS),
    ("taco", r"coco-100@taco\|", "0.0148 bpp is printed; an LPIPS of 0.0435 and 27.4 dB suggest 0.148"),
    ("taco", r".*\|lpips@taco\|", "the released script gives [0, 1] to a network made for [-1, 1], which lowers LPIPS"),
    ("perco", r".*\|ms-ssim@perco\|", "the table says SSIM; the text reports MS-SSIM only"),
    ("text-sketch", r".*", "which images of CLIC 2020 is not stated, and the rate is a comment's target"),
    ("text-sketch-notebook", r"kodak\|hific\|[^|]*\|kid@", "equals the value on CLIC 2021 to eight digits: a copy"),
    (
        "text-sketch-notebook",
        r"kodak\|",
        "stands beside three entries that are copies of those on CLIC 2021 (left out); FID and KID of 24 images",
    ),
    (
        "text-sketch-notebook",
        r"div2k-valid\|pics\|[^|]*\|(lpips/alex|dclip/h14)\|",
        "a mean without the first image: the loop skips it",
    ),
    (
        "edgecompression",
        r"[^|]*\|(bmshj2018-hyperprior|cheng2020)\|",
        "the benchmark says Ballé and Cheng: which of their models is our guess",
    ),
)
"""Source, pattern of ``dataset|codec|variant|metric|place``, what is doubtful. All that fit are joined."""

SCALE = {"miou": 0.01}
"""PerCo prints percent; ours is a fraction."""

PROTOCOLS = {("diffeic", f"{name}@diffeic"): "unstated" for name in ("clic2020", "tecnick")}
PROTOCOLS |= {("taco", "clic2020-test"): "as-is"}
"""Where it is not that of the rest of the source."""

ZERO_PADDED = {("compressai", f"clic2020-{part}@compressai") for part in ("mobile", "professional")}
"""Sources and sets of sizes that cannot be halved four times, scored by pytorch-msssim: its padding of odd sides by
zeros is not the one of our `ms-ssim`. Kodak and Tecnick are halved without padding."""
METRICS = {(*where, "ms-ssim"): "ms-ssim@pytorch-msssim" for where in ZERO_PADDED}
"""Where a metric's protocol depends on the set: source, dataset and metric of the source's rules, and its name."""
