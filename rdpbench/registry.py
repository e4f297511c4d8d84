"""Names to classes, without importing more than is asked for.

Three ways in, looked up in this order:

1. ``./mine.py:MyCodec`` (or ``package.module:MyCodec``): a class in a file of the user's;
2. what ships, as lazy strings below;
3. entry points ``rdpbench.codecs``, ``rdpbench.datasets``, ``rdpbench.metrics`` of installed packages.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Literal

from rdpbench.errors import ConfigError, UnknownName

Kind = Literal["codec", "dataset", "metric"]

BUILTIN: dict[Kind, dict[str, str]] = {
    "codec": {
        "avif": "rdpbench.codecs.avif:AVIF",
        "bmshj2018-factorized": "rdpbench.codecs.compressai_zoo:FactorizedPrior",
        "bmshj2018-hyperprior": "rdpbench.codecs.compressai_zoo:ScaleHyperprior",
        "bpg": "rdpbench.codecs.bpg:BPG",
        "cheng2020-anchor": "rdpbench.codecs.compressai_zoo:Cheng2020Anchor",
        "cheng2020-attn": "rdpbench.codecs.compressai_zoo:Cheng2020Attention",
        "elic": "rdpbench.codecs.elic:ELIC",
        "heif": "rdpbench.codecs.heif:HEIF",
        "hevc": "rdpbench.codecs.hevc:HEVC",
        "hific": "rdpbench.codecs.hific:HiFiC",
        "hific-tfci": "rdpbench.codecs.hific_tfci:HiFiCTensorFlow",
        "jpeg": "rdpbench.codecs.jpeg:JPEG",
        "jpeg2000": "rdpbench.codecs.jpeg2000:JPEG2000",
        "jpegxl": "rdpbench.codecs.jpegxl:JPEGXL",
        "lic-tcm": "rdpbench.codecs.lic_tcm:Tcm",
        "mbt2018": "rdpbench.codecs.compressai_zoo:Autoregressive",
        "mbt2018-mean": "rdpbench.codecs.compressai_zoo:MeanScaleHyperprior",
        "mini": "rdpbench.codecs.mini:Mini",
        "mozjpeg": "rdpbench.codecs.mozjpeg:MozJPEG",
        "msillm": "rdpbench.codecs.msillm:MSILLM",
        "msillm-nogan": "rdpbench.codecs.msillm:NoGAN",
        "perco": "rdpbench.codecs.perco:PerCo",
        "perco-image": "rdpbench.codecs.perco_image:PerCoImage",
        "pic": "rdpbench.codecs.pic:PIC",
        "pics": "rdpbench.codecs.pics:PICS",
        "pics-sketch": "rdpbench.codecs.pics:SketchPICS",
        "sd-vae": "rdpbench.codecs.sd_vae:StableDiffusionVAE",
        "taco": "rdpbench.codecs.taco:TACO",
        "textual-inversion": "rdpbench.codecs.textual_inversion:TextualInversion",
        "vtm": "rdpbench.codecs.vtm:VTM",
        "vvenc": "rdpbench.codecs.vvenc:VVenC",
        "webp": "rdpbench.codecs.webp:WebP",
    },
    "dataset": {
        "clic": "rdpbench.datasets.clic:CLIC",
        "coco": "rdpbench.datasets.coco:COCO",
        "div2k": "rdpbench.datasets.div2k:DIV2K",
        "folder": "rdpbench.datasets.folder:Folder",
        "kodak": "rdpbench.datasets.kodak:Kodak",
        "manifest": "rdpbench.datasets.listed:Listed",
        "openimages": "rdpbench.datasets.openimages:OpenImages",
        "samples": "rdpbench.datasets.samples:Samples",
    },
    "metric": {
        "caption/bleu-4/blip": "rdpbench.metrics.captioned:BLEU4BLIP",
        "caption/bleu-4/blip2": "rdpbench.metrics.captioned:BLEU4BLIP2",
        "caption/cider-d/blip": "rdpbench.metrics.captioned:CIDErDBLIP",
        "caption/cider-d/blip2": "rdpbench.metrics.captioned:CIDErDBLIP2",
        "clip-i/b32": "rdpbench.metrics.clip:CLIPImage",
        "clip-score/b32": "rdpbench.metrics.clip:CLIPScore",
        "clip-score/b32/gt-max": "rdpbench.metrics.clip:CLIPScoreMax",
        "clip-score/b32/gt-mean": "rdpbench.metrics.clip:CLIPScoreMean",
        "clip-score/hessel-b32": "rdpbench.metrics.clip:HesselScore",
        "clip-score/hessel-b32/gt-max": "rdpbench.metrics.clip:HesselScoreMax",
        "clip-score/hessel-b32/gt-mean": "rdpbench.metrics.clip:HesselScoreMean",
        "clip-score/l14": "rdpbench.metrics.clip:CLIPScoreL14",
        "clip-score/l14/gt-max": "rdpbench.metrics.clip:CLIPScoreL14Max",
        "clip-score/l14/gt-mean": "rdpbench.metrics.clip:CLIPScoreL14Mean",
        "cmmd": "rdpbench.metrics.cmmd:CMMD",
        "cmmd/noproj": "rdpbench.metrics.cmmd:CMMDNoProj",
        "cmmd/split": "rdpbench.metrics.cmmd:CMMDSplit",
        "cmmd/unbiased": "rdpbench.metrics.cmmd:CMMDUnbiased",
        "dclip/h14": "rdpbench.metrics.clip:DCLIP",
        "dists": "rdpbench.metrics.dists:DISTS",
        "dists/256": "rdpbench.metrics.dists:SmallDISTS",
        "diversity/deviation": "rdpbench.metrics.diversity:Deviation",
        "diversity/lpips-alex": "rdpbench.metrics.diversity:LPIPSAlexDiversity",
        "diversity/lpips-squeeze": "rdpbench.metrics.diversity:LPIPSSqueezeDiversity",
        "diversity/lpips-vgg": "rdpbench.metrics.diversity:LPIPSVGGDiversity",
        "edges/canny-f1": "rdpbench.metrics.edges:EdgeF1",
        "edges/canny-precision": "rdpbench.metrics.edges:EdgePrecision",
        "edges/canny-recall": "rdpbench.metrics.edges:EdgeRecall",
        "fid/clean": "rdpbench.metrics.fid:FIDClean",
        "fid/clean/fast": "rdpbench.metrics.fast:FIDCleanFast",
        "fid/hfd-256": "rdpbench.metrics.fid:FIDHFD",
        "fid/hific-patch": "rdpbench.metrics.fid:FIDHiFiCPatch",
        "fid/hific-patch/fast": "rdpbench.metrics.fast:FIDHiFiCPatchFast",
        "fid/hific-patch-noresize": "rdpbench.metrics.fid:FIDHiFiCPatchNoResize",
        "fid/legacy-tf": "rdpbench.metrics.fid:FIDLegacyTF",
        "fid/legacy-tf/fast": "rdpbench.metrics.fast:FIDLegacyTFFast",
        "fid/legacy-torch": "rdpbench.metrics.fid:FIDLegacyTorch",
        "fid/perco-512": "rdpbench.metrics.fid:FIDPerCo",
        "fid/taco-299/patch": "rdpbench.metrics.fid:FIDTACOPatch",
        "fid/taco-299/whole": "rdpbench.metrics.fid:FIDTACOWhole",
        "fid/text-sketch": "rdpbench.metrics.fid:FIDTextSketch",
        "fid/tm-1.8": "rdpbench.metrics.fid:FIDTorchMetrics",
        "flip": "rdpbench.metrics.flip:FLIP",
        "kid/clean": "rdpbench.metrics.kid:KIDClean",
        "kid/clean/fast": "rdpbench.metrics.fast:KIDCleanFast",
        "kid/clean/full": "rdpbench.metrics.kid:KIDCleanFull",
        "kid/clean/split": "rdpbench.metrics.kid:KIDCleanSplit",
        "kid/hfd-256": "rdpbench.metrics.kid:KIDHFD",
        "kid/hfd-256/full": "rdpbench.metrics.kid:KIDHFDFull",
        "kid/hific-patch": "rdpbench.metrics.kid:KIDHiFiCPatch",
        "kid/hific-patch/fast": "rdpbench.metrics.fast:KIDHiFiCPatchFast",
        "kid/hific-patch-noresize": "rdpbench.metrics.kid:KIDHiFiCPatchNoResize",
        "kid/hific-patch-noresize/full": "rdpbench.metrics.kid:KIDHiFiCPatchNoResizeFull",
        "kid/hific-patch/full": "rdpbench.metrics.kid:KIDHiFiCPatchFull",
        "kid/hific-patch/split": "rdpbench.metrics.kid:KIDHiFiCPatchSplit",
        "kid/legacy-tf": "rdpbench.metrics.kid:KIDLegacyTF",
        "kid/legacy-tf/fast": "rdpbench.metrics.fast:KIDLegacyTFFast",
        "kid/legacy-tf/full": "rdpbench.metrics.kid:KIDLegacyTFFull",
        "kid/legacy-tf/split": "rdpbench.metrics.kid:KIDLegacyTFSplit",
        "kid/legacy-torch": "rdpbench.metrics.kid:KIDLegacyTorch",
        "kid/legacy-torch/full": "rdpbench.metrics.kid:KIDLegacyTorchFull",
        "kid/perco-512": "rdpbench.metrics.kid:KIDPerCo",
        "kid/perco-512/full": "rdpbench.metrics.kid:KIDPerCoFull",
        "kid/taco-299/patch": "rdpbench.metrics.kid:KIDTACOPatch",
        "kid/taco-299/patch/full": "rdpbench.metrics.kid:KIDTACOPatchFull",
        "kid/taco-299/whole": "rdpbench.metrics.kid:KIDTACOWhole",
        "kid/taco-299/whole/full": "rdpbench.metrics.kid:KIDTACOWholeFull",
        "kid/text-sketch": "rdpbench.metrics.kid:KIDTextSketch",
        "kid/text-sketch/full": "rdpbench.metrics.kid:KIDTextSketchFull",
        "kid/tm-1.8": "rdpbench.metrics.kid:KIDTorchMetrics",
        "kid/tm-1.8/full": "rdpbench.metrics.kid:KIDTorchMetricsFull",
        "lpips/alex": "rdpbench.metrics.lpips:LPIPSAlex",
        "lpips/squeeze": "rdpbench.metrics.lpips:LPIPSSqueeze",
        "lpips/taco-script": "rdpbench.metrics.lpips:TACOScript",
        "lpips/vgg": "rdpbench.metrics.lpips:LPIPSVGG",
        "miou/eomt-large": "rdpbench.metrics.miou:MIoUEomtLarge",
        "miou/eomt-small": "rdpbench.metrics.miou:MIoUEomtSmall",
        "miou/maskformer-stuff": "rdpbench.metrics.miou:MIoUMaskFormerStuff",
        "ms-ssim": "rdpbench.metrics.msssim:MSSSIM",
        "ms-ssim/torchmetrics": "rdpbench.metrics.msssim:TorchmetricsMSSSIM",
        "pieapp/dense": "rdpbench.metrics.pieapp:PieAPPDense",
        "pieapp/sparse": "rdpbench.metrics.pieapp:PieAPPSparse",
        "psnr": "rdpbench.metrics.psnr:PSNR",
        "psnr-pooled": "rdpbench.metrics.psnr:PooledPSNR",
    },
}


def names(kind: Kind) -> list[str]:
    """All registered names of a kind: shipped ones and entry points.

    >>> "jpeg" in names("codec")
    True
    """
    return sorted({*BUILTIN[kind], *_entry_points(kind)})


def load(kind: Kind, reference: str) -> type:
    """Import the class that a reference names.

    Raises:
        UnknownName: no such name; the nearest one is suggested.
        ConfigError: the file or class that the reference names cannot be loaded.

    >>> load("metric", "psnr").higher_is_better
    True
    """
    if ":" in reference:
        return _load_own(reference, f"{kind}={reference}")
    target = BUILTIN[kind].get(reference) or _entry_points(kind).get(reference)
    if target is None and (counted := _counted(kind, reference)):
        return counted
    if target is None:
        raise UnknownName(kind, reference, names(kind), f"your own: {kind}=./my_{kind}.py:MyClass")
    if reference in BUILTIN[kind]:
        return _builtin(target)
    return _load_own(target, f"entry point {reference!r} of an installed package")


@cache
def _builtin(target: str) -> type:
    """A class that ships; asked for a dozen times in a task."""
    module, _, attribute = target.partition(":")
    builtin: type = getattr(importlib.import_module(module), attribute)
    return builtin


def source_sha256(kind: Kind, reference: str) -> str:
    """Hash of the file that a class of the user's or of an entry point comes from; empty for what ships.

    It enters the keys: an edited codec of one's own is another codec. What that file imports is not followed.
    """
    if reference in BUILTIN[kind] or _counted(kind, reference):
        return ""
    file = sys.modules[load(kind, reference).__module__].__file__
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


def _counted(kind: Kind, reference: str) -> type | None:
    """A metric of ours over several decodes, whose name ends in their number: ``diversity/deviation/5``."""
    stem, _, number = reference.rpartition("/")
    if kind != "metric" or stem not in BUILTIN[kind] or not number.isdecimal() or str(int(number)) != number:
        return None
    over = getattr(load(kind, stem), "over", None)
    counted: type | None = over(int(number)) if over else None
    return counted


@cache
def _entry_points(kind: Kind) -> dict[str, str]:
    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=f"rdpbench.{kind}s")}


def _load_own(reference: str, named_by: str) -> type:
    where, _, attribute = reference.rpartition(":")
    module = _module_from_file(Path(where), named_by) if where.endswith(".py") else _module(where, named_by)
    loaded = getattr(module, attribute, None)
    if not isinstance(loaded, type):
        own = (value for value in vars(module).values() if isinstance(value, type))
        classes = [value.__name__ for value in own if value.__module__ == module.__name__]
        raise UnknownName("class", attribute, classes, f"in {where}, named by {named_by}")
    return loaded


def _module(name: str, named_by: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a module of the user's may raise
        raise ConfigError(f"cannot import {name!r}, named by {named_by}: {type(error).__name__}: {error}") from error


def _module_from_file(path: Path, named_by: str) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"no such file: {path}, named by {named_by}")
    # The name depends on the place, so that two files called codec.py do not meet; dataclasses need it in sys.modules.
    name = f"rdpbench_own_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module
