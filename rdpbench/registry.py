"""Look up classes by name without importing the others, and check classes of the user's.

A name is looked up in this order: a class of the user's, as ``./mine.py:MyCodec`` or ``package.module:MyCodec``; what
ships, as lazy strings below; an entry point ``rdpbench.codecs``, ``rdpbench.datasets`` or ``rdpbench.metrics`` of an
installed package.

`faults_of` in ``codecs/contract.py``, ``metrics/contract.py`` and ``datasets/contract.py`` says what a class lacks,
before anything is coded. This file has what the three share: a fault is a sentence that says what is wrong and what to
write.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from rdpbench import own
from rdpbench.errors import ConfigError, UnknownName, few, nearest
from rdpbench.opened import watch

Kind = Literal["codec", "dataset", "metric"]


class Reference(NamedTuple):
    """What names a class of the user's, taken apart."""

    where: str
    """A file, or a module that Python finds."""
    name: str
    """Of the class; of what a YAML file declares."""
    apart: str = ""
    """As JSON, how a codec runs in an environment of its own (`rdpbench.codecs.external`); empty for one in ours."""

    @property
    def short(self) -> str:
        """Without the folder, and how it runs: what of it is in keys."""
        return self.where if self.where == "folder" else f"{self.where.rpartition('/')[2]}:{self.name}"


def parse(reference: str) -> Reference:
    """Take ``file.py:Class`` apart.

    >>> parse("/home/me/mine.py:Mine").name, parse('mine.py:Mine@{"python": "/p:q"}').apart
    ('Mine', '{"python": "/p:q"}')
    """
    plain, sign, apart = reference.partition("@{")
    where, _, name = plain.rpartition(":")
    return Reference(where, name, sign[1:] + apart)


METRICS = {
    "captioned": "caption/bleu-4/blip caption/bleu-4/blip2 caption/cider-d/blip caption/cider-d/blip2",
    "clip": (
        "clip-i/b32 clip-score/b32 clip-score/b32/gt-max clip-score/b32/gt-mean clip-score/hessel-b32 "
        "clip-score/hessel-b32/gt-max clip-score/hessel-b32/gt-mean clip-score/l14 clip-score/l14/gt-max "
        "clip-score/l14/gt-mean dclip/h14"
    ),
    "mmd": "cmmd cmmd/noproj cmmd/split cmmd/unbiased",
    "dists": "dists dists/256",
    "diversity": "diversity/deviation diversity/lpips-alex diversity/lpips-squeeze diversity/lpips-vgg",
    "edges": "edges/canny-f1 edges/canny-precision edges/canny-recall",
    "flip": "flip",
    "inception_distances": (
        "fid/clean fid/clean/fast fid/hfd-256 fid/hific-patch fid/hific-patch-noresize fid/hific-patch/fast "
        "fid/legacy-tf fid/legacy-tf/fast fid/legacy-torch fid/perco-512 fid/taco-299/patch fid/taco-299/whole "
        "fid/text-sketch fid/tm-1.8 kid/clean kid/clean/fast kid/clean/full kid/clean/split kid/hfd-256 "
        "kid/hfd-256/full kid/hific-patch kid/hific-patch-noresize kid/hific-patch-noresize/full kid/hific-patch/fast "
        "kid/hific-patch/full kid/hific-patch/split kid/legacy-tf kid/legacy-tf/fast kid/legacy-tf/full "
        "kid/legacy-tf/split kid/legacy-torch kid/legacy-torch/full kid/perco-512 kid/perco-512/full "
        "kid/taco-299/patch kid/taco-299/patch/full kid/taco-299/whole kid/taco-299/whole/full kid/text-sketch "
        "kid/text-sketch/full kid/tm-1.8 kid/tm-1.8/full"
    ),
    "lpips": "lpips/alex lpips/squeeze lpips/taco-script lpips/vgg",
    "miou": "miou/eomt-large miou/eomt-small miou/maskformer-stuff",
    "msssim": "ms-ssim ms-ssim/torchmetrics",
    "noreference": (
        "clip-iqa+ clip-iqa+/originals maniqa/koniq maniqa/koniq/originals musiq/koniq musiq/koniq/originals niqe "
        "niqe/originals topiq-nr/koniq topiq-nr/koniq/originals"
    ),
    "pieapp": "pieapp/dense pieapp/sparse",
    "programs": (
        "butteraugli/3-norm/80-nits butteraugli/max/80-nits ssimulacra2/libjxl "
        "vmaf-neg/1080p-3h/420-8bit-bt709-limited vmaf/1080p-3h/420-8bit-bt709-limited"
    ),
    "psnr": "psnr psnr-pooled",
    "realism": (
        "coverage/dinov2 coverage/hific-patch coverage/legacy-tf density/dinov2 density/hific-patch "
        "density/legacy-tf fd-dinov2 kd-dinov2 kd-dinov2/full kd-dinov2/split precision/dinov2 "
        "precision/hific-patch precision/legacy-tf recall/dinov2 recall/hific-patch recall/legacy-tf"
    ),
    "ssimulacra2": "ssimulacra2",
}
"""Metrics by the module of `rdpbench.metrics` whose ``METRICS`` has their classes."""

USUAL = {"lpips": "lpips/alex"}
"""Variants that papers mean by the bare name of a family. Of FID and KID they mean several, so none is taken."""

BUILTIN: dict[Kind, dict[str, str]] = {
    "codec": {
        "avif": "rdpbench.codecs.classical.avif:AVIF",
        "bmshj2018-factorized": "rdpbench.codecs.learned.zoo:FactorizedPrior",
        "bmshj2018-hyperprior": "rdpbench.codecs.learned.zoo:ScaleHyperprior",
        "bpg": "rdpbench.codecs.classical.bpg:BPG",
        "cheng2020-anchor": "rdpbench.codecs.learned.zoo:Cheng2020Anchor",
        "cheng2020-attn": "rdpbench.codecs.learned.zoo:Cheng2020Attention",
        "elic": "rdpbench.codecs.learned.elic:ELIC",
        "heif": "rdpbench.codecs.classical.hevc:HEIF",
        "hevc": "rdpbench.codecs.classical.hevc:HEVC",
        "hific": "rdpbench.codecs.learned.hific:HiFiC",
        "hific-tfci": "rdpbench.codecs.learned.hific.tfci:HiFiCTensorFlow",
        "jpeg": "rdpbench.codecs.classical.pillow:JPEG",
        "jpeg2000": "rdpbench.codecs.classical.pillow:JPEG2000",
        "jpegxl": "rdpbench.codecs.classical.jpegxl:JPEGXL",
        "lic-tcm": "rdpbench.codecs.learned.lic_tcm:Tcm",
        "mbt2018": "rdpbench.codecs.learned.zoo:Autoregressive",
        "mbt2018-mean": "rdpbench.codecs.learned.zoo:MeanScaleHyperprior",
        "mini": "rdpbench.codecs.learned.mini:Mini",
        "mozjpeg": "rdpbench.codecs.classical.pillow:MozJPEG",
        "msillm": "rdpbench.codecs.learned.msillm:MSILLM",
        "msillm-nogan": "rdpbench.codecs.learned.msillm:NoGAN",
        "perco": "rdpbench.codecs.diffusion.perco:PerCo",
        "perco-image": "rdpbench.codecs.diffusion.perco.image:PerCoImage",
        "pic": "rdpbench.codecs.diffusion.pic:PIC",
        "pics": "rdpbench.codecs.diffusion.pic:PICS",
        "pics-sketch": "rdpbench.codecs.diffusion.pic:SketchPICS",
        "sd-vae": "rdpbench.codecs.diffusion.sd_vae:StableDiffusionVAE",
        "taco": "rdpbench.codecs.learned.taco:TACO",
        "textual-inversion": "rdpbench.codecs.diffusion.textual_inversion:TextualInversion",
        "vtm": "rdpbench.codecs.classical.vvc:VTM",
        "vvenc": "rdpbench.codecs.classical.vvc:VVenC",
        "webp": "rdpbench.codecs.classical.pillow:WebP",
    },
    "dataset": {
        "clic": "rdpbench.datasets.official:CLIC",
        "coco": "rdpbench.datasets.coco:COCO",
        "div2k": "rdpbench.datasets.official:DIV2K",
        "folder": "rdpbench.datasets.folder:ImageFolder",
        "kodak": "rdpbench.datasets.folder:Kodak",
        "manifest": "rdpbench.datasets.folder:Listed",
        "samples": "rdpbench.datasets.folder:Samples",
    },
    "metric": {
        name: f"rdpbench.metrics.{module}:{name}" for module, all_names in METRICS.items() for name in all_names.split()
    },
}


def names(kind: Kind) -> list[str]:
    """All registered names of a kind: shipped ones and entry points.

    >>> "jpeg" in names("codec")
    True
    """
    return sorted({*BUILTIN[kind], *_entry_points(kind)})


def installed(kind: Kind) -> list[str]:
    """The names of entry points alone."""
    return [name for name in names(kind) if name not in BUILTIN[kind]]


def load(kind: Kind, reference: str) -> type:
    """Import the class that a reference names.

    Raises:
        UnknownName: no such name; the nearest one is suggested.
        ConfigError: the file or class that the reference names cannot be loaded.

    >>> load("metric", "psnr").higher_is_better
    True
    """
    if ":" in reference:
        if _from_results.get():
            raise ConfigError(f"{kind} {reference!r} is named by results, and is not loaded: it is no installed name")
        return _load_own(_own_target(kind, reference) or reference, f"{kind}={reference}")
    target = BUILTIN[kind].get(reference) or _entry_points(kind).get(reference)
    if target is None and (counted := _counted(kind, reference)):
        return counted
    if target is None:
        setting = {"codec": "codec", "dataset": "data", "metric": "metrics"}[kind]
        raise UnknownName(kind, reference, names(kind), f"your own: {setting}=./my_{kind}.py:MyClass")
    if reference in BUILTIN[kind]:
        return _builtin(target)
    return _load_own(target, f"entry point {reference!r} of an installed package")


_from_results: ContextVar[bool] = ContextVar("from_results", default=False)


@contextlib.contextmanager
def installed_only() -> Iterator[None]:
    """Inside, names come from results, which anybody may have written: `load` imports no file or module that they name.

    Options of codecs that ship may name a codec, too, so this holds while one is built and while it decodes.

    >>> with installed_only():
    ...     print(load("metric", "psnr").unit)
    dB
    """
    before = _from_results.set(True)
    try:
        yield
    finally:
        _from_results.reset(before)


@cache
def _builtin(target: str) -> type:
    """A class that ships; asked for a dozen times in a task."""
    where, _, name = target.partition(":")
    module = importlib.import_module(where)
    builtin: type = module.METRICS[name] if where.startswith("rdpbench.metrics.") else getattr(module, name)
    return builtin


def source_sha256(kind: Kind, reference: str) -> str:
    """Hash of the files that a class of the user's or of an entry point is made of (`rdpbench.own`); empty otherwise.

    It enters the keys: an edited codec is another codec. What this process loads from now on is of the hashed state.
    """
    target = _own_target(kind, reference)
    if target is None:
        return ""
    where, _, apart = parse(target)
    if apart:
        return str(_apart().source_now(target))
    if where.endswith(".py"):
        loaded = _files.get(str(_path_of(where)))
        if loaded and not loaded[1].is_still():
            del _files[str(_path_of(where))]
            own.unload(_path_of(where))
    load(kind, reference)
    source = _files[str(_path_of(where))][1] if where.endswith(".py") else _modules[where]
    return source.sha256 if source else ""


def source_now(kind: Kind, reference: str) -> str:
    """What `source_sha256` would be of the files as they lie on the disk now; nothing is imported or executed.

    Empty for what ships, and for what is not here.

    >>> source_now("codec", "jpeg"), source_now("codec", "./gone.py:Gone")
    ('', '')
    """
    target = _own_target(kind, reference) or ""
    where, _, apart = parse(target)
    try:
        if apart:
            return str(_apart().source_now(target))
        if where.endswith(".py"):
            # A row may name anything: a pipe, of which a read never ends, is no file.
            source = own.read_file(_path_of(where)) if _path_of(where).is_file() else None
        else:
            source = own.read_module(where)
    except (OSError, ValueError):  # ValueError: a path with a NUL in it
        return ""
    return source.sha256 if source else ""


def source_of(cls: type) -> str:
    """The same hash for a class that was loaded, of a kind that has no names."""
    source = own.source_of(cls.__module__)
    return source.sha256 if source else ""


def own_place(kind: Kind, reference: str) -> str:
    """The file or module of the user's or of an entry point that holds a class; empty for what ships.

    >>> own_place("codec", "jpeg"), own_place("codec", "/home/me/mine.py:Mine")
    ('', '/home/me/mine.py')
    """
    where = parse(_own_target(kind, reference) or "").where
    return str(_path_of(where)) if where.endswith((".py", ".yaml")) else where


def _own_target(kind: Kind, reference: str) -> str | None:
    """``file.py:Class`` or ``module:Class``; None for what ships, or what there is not."""
    if ":" in reference:
        return metric_places.get(reference, reference) if kind == "metric" else reference
    return None if reference in BUILTIN[kind] else _entry_points(kind).get(reference)


metric_places: dict[str, str] = {}
"""Where the metrics of the user's lie that were typed: scores have the file and the class, and no folder."""


_files: dict[str, tuple[ModuleType, own.OwnSource]] = {}
_modules: dict[str, own.OwnSource | None] = {}
"""What was loaded of the user's, with its source as it was then."""


meanings: dict[str, Any] = {}
"""What the runs that a command reads say of metrics that are not installed here (`rdpbench.results.stats.points`)."""


def forget() -> None:
    """A new command: what an earlier one in this process loaded of files of the user's is loaded again.

    Such a module may remember what was in the files that it opened then.
    """
    for path in _files:
        own.unload(Path(path))
    _files.clear()
    meanings.clear()
    if "rdpbench.codecs.external" in sys.modules:
        _apart().forget()


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


def _apart() -> Any:
    """What runs codecs in environments of their own; imported where one is named."""
    return importlib.import_module("rdpbench.codecs.external")


def _load_own(reference: str, named_by: str) -> type:
    where, attribute, apart = parse(reference)
    if apart:
        hosted: type = _apart().load(reference)
        return hosted
    module = _module_from_file(Path(where), named_by) if where.endswith(".py") else _module(where, named_by)
    loaded = getattr(module, attribute, None)
    if not isinstance(loaded, type):
        own = (value for value in vars(module).values() if isinstance(value, type))
        classes = [value.__name__ for value in own if value.__module__ == module.__name__]
        raise UnknownName("class", attribute, classes, f"in {where}, named by {named_by}")
    return loaded


def _module(name: str, named_by: str) -> ModuleType:
    if name not in _modules:
        source = own.read_module(name)
        if source:
            watch(name, source.tops - {"rdpbench"}, source.files)
        _modules[name] = source
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a module of the user's may raise
        del _modules[name]
        raise ConfigError(f"cannot import {name!r}, named by {named_by}: {_why(error, Path.cwd())}") from error


def _why(error: Exception, beside: Path) -> str:
    """What a module of the user's raised; of one that it lacks, where that was looked for."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"it imports {error.name!r}, and there is no such module in {beside}, on PYTHONPATH, or among the packages "
            f"of {sys.executable}\n  install it there, or run the class with an interpreter that has it: "
            "python=~/envs/mine/bin/python"
        )
    return f"{type(error).__name__}: {error}"


def _path_of(where: str) -> Path:
    return Path(where).expanduser().resolve()


def _module_from_file(path: Path, named_by: str) -> ModuleType:
    path = _path_of(str(path))
    if str(path) not in _files:
        if not path.is_file():
            near = nearest(path.name, (file.name for file in path.parent.glob("*.py")))
            meant = f"; did you mean {path.with_name(near[0])}?" if near else ""
            raise ConfigError(f"no such file: {path}, named by {named_by}{meant}")
        try:
            source = own.read_file(path)
            _files[str(path)] = own.load_module(path, source), source
        except Exception as error:
            raise ConfigError(f"{path} cannot be loaded: {_why(error, path.parent)}") from error
    return own.enter(_files[str(path)][0])


MISSING = object()


def shape_of(
    cls: type, method: str, arguments: tuple[str, ...], keywords: Iterable[str] = (), types: str = ""
) -> Iterator[str]:
    """A fault if a class has no such method, or one that cannot be called so; ``types`` says what it takes and returns.

    >>> list(shape_of(type("Mine", (), {"decode": lambda self: 0}), "decode", ("data",)))
    ['decode() cannot be called with (data): too many positional arguments; write def decode(self, data)']
    """
    by_name = tuple(keywords)
    words = ", ".join([*arguments, *([f"*, {', '.join(by_name)}"] if by_name else [])])
    write = f"write def {method}(self{', ' if words else ''}{words}){types and f': {types}'}"
    function = inspect.getattr_static(cls, method, None)
    if function is None:
        others = [name for name, value in vars(cls).items() if inspect.isfunction(value) and name[0] != "_"]
        has = f", and it has {few(others)}" if types and others else ""
        yield f"{method}({words}) is missing{has}; {write}"
        return
    if not callable(getattr(cls, method)):
        yield f"{method} is {getattr(cls, method)!r:.60}, and no method; {write}"
        return
    bound = () if isinstance(function, (staticmethod, classmethod)) else (None,)
    why = refusal(getattr(cls, method), (*bound, *arguments), by_name)
    if why:
        yield f"{method}() cannot be called with ({words}): {why}; {write}"


def refusal(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: Iterable[str] = (), *, some: bool = False
) -> str:
    """Why a function cannot be called with these arguments; empty if it can, or if nobody knows.

    ``some``: others may be needed beside them.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""  # of compiled code
    try:
        (signature.bind_partial if some else signature.bind)(*arguments, **dict.fromkeys(keywords))
    except TypeError as error:
        return str(error)
    return ""


def type_of(
    cls: Any, name: str, types: type | tuple[type, ...], write: str, *, required: bool = False
) -> Iterator[str]:
    """A fault if what a class states is of another type, or if it must state it and does not.

    >>> list(type_of(type("Mine", (), {"unit": 3}), "unit", str, 'unit = "dB"'))
    ['unit is 3 (int); write unit = "dB"']
    """
    value = getattr(cls, name, MISSING)
    if value is MISSING:
        if required:
            yield f"{name} is missing; write {write}"
    elif not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        yield f"{name} is {value!r:.60} ({type(value).__name__}); write {write}"


def texts_in(cls: Any, name: str, write: str) -> Iterator[str]:
    """A fault if what a class states is no list of texts."""
    value = getattr(cls, name, ())
    if isinstance(value, str) or not _all(value, lambda text: isinstance(text, str)):
        yield f"{name} is {value!r:.60}; write {write}"


def needs_in(cls: Any) -> Iterator[str]:
    """A fault if what a class needs is no list of what `rdpbench.needs` has."""
    value = getattr(cls, "needs", ())
    if not _all(value, lambda need: callable(getattr(need, "missing", None))):
        yield f'needs is {value!r:.60}; write needs = (), or such as needs = (rdpbench.needs.Package("scipy"),)'


def abstract_in(cls: type) -> Iterator[str]:
    """A fault if a class cannot be built, since methods of its base are left open."""
    if inspect.isabstract(cls):
        open_ = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        yield f"it is abstract; write its methods {open_}"


def _all(value: object, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, (tuple, list, set, frozenset)) and all(map(fits, value))
