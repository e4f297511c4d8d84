"""Images in a folder: any (``folder:PATH``), those that a manifest lists (``manifest:FILE``), Kodak, and the samples.

The first two are of one's own, and may bring captions to score against and label maps::

    data=folder:pictures data.options.references=captions.json data.options.labels=maps
    data=manifest:mine.sha256      # whose lines "# references: captions.json" and "# labels: maps" name them

``references`` is a JSON file in the forms of ``captions=file:`` (`rdpbench.datasets.captions`); all captions of
an image are scored against, and none is given to an encoder. ``labels`` is a folder of PNGs as
`rdpbench.datasets.labels.write_labels` writes them, with the images' names: ``maps/a/b.png`` for ``pictures/a/b.jpg``.

In a manifest, as `rdpbench data manifest FOLDER` writes it, names are relative to the folder of the images:
``data.path=FOLDER``, or what its line ``# folder:`` names below the manifest's own folder, or that folder. ``# name:``
and ``# protocol:`` name the set and what is done to its images. The manifests of Kodak and of the samples ship.
"""

from __future__ import annotations

import importlib.util
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NoReturn

from rdpbench.assets.hashes import file_facts, file_sha256
from rdpbench.datasets import captions as caption_files
from rdpbench.datasets.contract import Here, Pin, PinKind, Sample
from rdpbench.datasets.manifest import Manifest, differences, manifest_sha256, present
from rdpbench.errors import ConfigError, ImageError, few, nearest
from rdpbench.image import EXTENSIONS, OTHER_EXTENSIONS, check_names
from rdpbench.needs import Need, Package
from rdpbench.paths import RUNS, data_folders, is_run, variable


class _OwnImages:
    needs: ClassVar[tuple[Need, ...]] = ()

    def beside_missing(self, what: str) -> str:
        """How to give ``captions`` to score against, or ``labels``."""
        if what == "captions":
            return 'data.options.references=FILE names a JSON file {"image name": ["caption", ...]}'
        return (
            "data.options.labels=FOLDER names a folder of PNGs with the images' names, "
            "as rdpbench.datasets.labels.write_labels(path, labels, classes) writes them"
        )


@dataclass(frozen=True)
class ImageFolder(_OwnImages):
    """All images below a folder; an image's id is its path in there, without the ending where that is unique."""

    path: str
    name: str = ""
    protocol: str = "as-is"
    references: str = ""
    """JSON file of captions to score against."""
    labels: str = ""
    """Folder of label maps; if it lies among the images, it is none of them."""

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("which folder? Write data=folder:/path/to/images")
        if not self.name:
            object.__setattr__(self, "name", f"folder-{Path(self.path).expanduser().resolve().name}")

    @property
    def _root(self) -> Path:
        # Absolute: rows outlive the folder that a command was typed in.
        return Path(self.path).expanduser().absolute()

    @cached_property
    def _listing(self) -> tuple[list[Path], tuple[str, ...]]:
        """The images, and what is not read."""
        root = self._root
        if not root.is_dir():
            if root.is_file():
                raise ConfigError(f"{root} is a file; data=folder:{root.parent} takes the images of its folder")
            near = nearest(root.name, (path.name for path in root.parent.glob("*/")))
            meant = f"; did you mean {root.with_name(near[0])}?" if near else ""
            raise ConfigError(f"no such folder: {root}, named by data=folder:{self.path}{meant}")
        maps = _typed(self.labels)
        files: list[Path] = []
        unread: dict[str, list[str]] = {kind: [] for kind in _UNREAD}
        for folder, folders, names in os.walk(root, onerror=_unreadable):
            results = [name for name in folders if _is_results(Path(folder, name))]
            unread["results"] += [Path(folder, name).relative_to(root).as_posix() for name in results]
            folders[:] = [name for name in folders if name not in results]
            links = (name for name in folders if Path(folder, name).is_symlink() and not name.startswith("."))
            unread["links"] += [Path(folder, name).relative_to(root).as_posix() for name in links]
            for path in (Path(folder, name) for name in names):
                if maps is not None and maps in path.parents:
                    continue
                relative, ending = path.relative_to(root), path.suffix.lower()
                # Hidden files and folders are not the user's images, but the folder that was named may be hidden.
                hidden = any(part.startswith(".") for part in relative.parts)
                if ending in EXTENSIONS and not hidden:
                    files.append(path)
                elif ending in EXTENSIONS:
                    unread["hidden"].append(relative.as_posix())
                elif ending in OTHER_EXTENSIONS and not hidden:
                    unread["other"].append(relative.as_posix())
        notes = _notes(self.name, unread)
        if not files:
            looked = f"no images in {root}; looked for {', '.join(sorted(EXTENSIONS))}"
            raise ImageError("\n  ".join([looked, *notes]))
        check_names(files)
        if gone := sorted(path.relative_to(root).as_posix() for path in files if not path.is_file()):
            raise ImageError(f"{len(gone)} images in {root} are no files, but for example broken links: {few(gone)}")
        return sorted(files), notes

    def notes(self) -> tuple[str, ...]:
        """What of the folder is not read."""
        return self._listing[1]

    def samples(self) -> Iterator[Sample]:
        """Sorted by path."""
        paths, root = self._listing[0], self._root
        ids = _ids([path.relative_to(root).as_posix() for path in paths])
        samples = [Sample(id_, path) for id_, path in zip(ids, paths, strict=True)]
        yield from _with_beside(samples, root, self.name, _typed(self.references), _typed(self.labels))

    def pinned(self) -> Pin:
        """Hash of all files, also under ``limit=``: a run of the first images of a folder is a run on that folder.

        Bytes are read once, 30,000 images of COCO in half a minute, and remembered.
        """
        facts, root = file_facts(self._listing[0]), self._root
        named = ((path.relative_to(root).as_posix(), fact.sha256) for path, fact in facts)
        return Pin(manifest_sha256(named), "made")

    def __len__(self) -> int:
        return len(self._listing[0])


def _unreadable(error: OSError) -> NoReturn:
    raise ImageError(f"cannot search the folder {error.filename}: {error.strerror}") from error


def _is_results(folder: Path) -> bool:
    """Does a folder hold what rdpbench wrote: a run, or runs and figures?"""
    results, runs = PurePosixPath(RUNS).parts
    return is_run(folder) or (folder.name == results and (folder / runs).is_dir())


_UNREAD = {
    "other": "images of a format that is not read (convert them to PNG)",
    "hidden": "hidden images, which are not read",
    "links": "links to folders, which are not followed",
    "results": "folders of results of rdpbench, which are left out",
}
"""What a folder may hold that is no image of the set."""


def _notes(name: str, unread: Mapping[str, list[str]]) -> tuple[str, ...]:
    # Names that are not UTF-8 must not stop a note about them.
    shown = {
        kind: [path.encode(errors="backslashreplace").decode() for path in sorted(unread[kind])] for kind in unread
    }
    return tuple(
        f"{name!r}: {len(shown[kind])} {text}: {few(shown[kind])}" for kind, text in _UNREAD.items() if shown[kind]
    )


class Pinned:
    """A set whose files a manifest names, each held against its sha256."""

    kind: ClassVar[PinKind]

    @property
    def manifest(self) -> Manifest:
        """The names and hashes."""
        raise NotImplementedError

    def places(self) -> list[Path]:
        """Folders that may hold the files, best first."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.manifest.files)

    def pinned(self) -> Pin:
        """The manifest."""
        return Pin(self.manifest.sha256(), self.kind)

    def here(self) -> Here:
        """What lies here, by names alone."""
        for folder in self.places():
            if count := sum((folder / name).is_file() for name in self.manifest.files):
                return Here(count, self.kind, folder)
        return Here(0, None)

    def verify(self) -> list[str]:
        """Read every byte again and say what differs from the manifest."""
        folder = self.here().folder or self.places()[-1]
        return differences({folder / name: sha256 for name, sha256 in self.manifest.files.items()})


@dataclass(frozen=True)
class Listed(Pinned, _OwnImages):
    """The images that a manifest of the user's names."""

    kind = "made"

    file: str
    name: str = ""
    protocol: str = ""
    path: str | None = None
    """The folder that the names are relative to."""
    allow_partial: bool = False
    references: str = ""
    """JSON file of captions to score against."""
    labels: str = ""
    """Folder of label maps."""

    def __post_init__(self) -> None:
        if not self.file:
            raise ConfigError("which manifest? Write data=manifest:FILE; `rdpbench data manifest FOLDER` writes one")
        header = self.manifest.header
        object.__setattr__(self, "name", self.name or header.get("name") or Path(self.file).stem)
        object.__setattr__(self, "protocol", self.protocol or header.get("protocol") or "as-is")
        if "/" in self.name or self.name.startswith("."):
            raise ConfigError(f"{self.file} names its set {self.name!r}; a name has no slash and no dot in front")

    @cached_property
    def manifest(self) -> Manifest:
        manifest = Manifest.read(Path(self.file).expanduser())
        if not manifest.files:
            raise ConfigError(f"{self.file} names no images")
        return manifest

    @property
    def _root(self) -> Path:
        place = _typed(self.path) or self._named("folder", "data.path=FOLDER")
        return place or Path(self.file).expanduser().absolute().parent

    def _named(self, key: str, instead: str) -> Path | None:
        """What a line of the manifest names below its own folder; None if it has no such line."""
        if key not in self.manifest.header:
            return None
        beside = PurePosixPath(self.manifest.header[key])
        if beside.is_absolute() or ".." in beside.parts:
            raise ConfigError(f"{self.file}: its {key} {str(beside)!r} leads out of its folder; say {instead}")
        return Path(self.file).expanduser().absolute().parent / beside

    def samples(self) -> Iterator[Sample]:
        """In the manifest's order."""
        root, files = self._root, self.manifest.files
        whose, hint = f"the {len(files)} images in {self.file}", "data.path=FOLDER says where they are, "
        here = present(files, root, whose, hint, partial=self.allow_partial)
        ids = dict(zip(files, _ids(files), strict=True))
        samples = [Sample(ids[name], root / name, (), sha256) for name, sha256 in here.items()]
        references = _typed(self.references) or self._named("references", "data.options.references=FILE")
        labels = _typed(self.labels) or self._named("labels", "data.options.labels=FOLDER")
        yield from _with_beside(samples, root, self.name, references, labels)

    def places(self) -> list[Path]:
        return [self._root]


def make_manifest(folder: Path, name: str, out: Path) -> Manifest:
    """Write a manifest of all images below a folder, in the order of their names.

    Raises:
        ConfigError: no such folder, or a name that cannot be one.
        ImageError: no images there, or files that are none.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "mine"
        raise ConfigError(
            f"--name {name!r}: a name has letters, digits, dots, dashes and underscores only; type --name {plain}"
        )
    root = folder.expanduser().absolute()
    files: dict[str, str] = {}
    broken: list[str] = []
    paths = (sample.path for sample in ImageFolder(str(root)).samples())
    for path, facts in file_facts(paths, remembered=False):
        relative = path.relative_to(root).as_posix()
        if "\n" in relative or "\\" in relative:
            raise ImageError(f"{relative!r}: a manifest cannot hold such a name")
        files[relative] = facts.sha256
        if not facts.height:
            broken.append(relative)
    if broken:
        raise ImageError(f"{len(broken)} files in {root} are no images: {few(broken)}")
    header = {"name": name, "images": str(len(files))}
    # Where the images are, if that is below the manifest: both can then be moved together.
    where = Path(os.path.relpath(root, out.expanduser().absolute().parent))
    if ".." not in where.parts:
        header["folder"] = where.as_posix()
    manifest = Manifest(files, header)
    out.expanduser().parent.mkdir(parents=True, exist_ok=True)
    manifest.write(out.expanduser())
    return manifest


def _ids(names: Iterable[str]) -> list[str]:
    """Names without their endings, where that is unique."""
    bare = {name: PurePosixPath(name).with_suffix("").as_posix() for name in names}
    times = Counter(bare.values())
    return [short if times[short] == 1 else name for name, short in bare.items()]


def _typed(path: str | None) -> Path | None:
    """A file or folder as it was typed; None for none."""
    return Path(path).expanduser().absolute() if path else None


# Beside the images


def _with_beside(
    samples: Sequence[Sample], root: Path, dataset: str, references: Path | None, labels: Path | None
) -> Iterator[Sample]:
    """The samples with their captions and label maps, where there are some."""
    captions: dict[str, tuple[str, ...]] = {}
    if references:
        try:
            raw = references.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read the references {references}: {error.strerror}") from error
        listed = caption_files.read_references(raw, str(references))
        names = caption_files.match(listed, samples, str(references), dataset, partial=True)
        captions = {image: listed[name] for image, name in names.items()}
    maps = _maps(samples, root, dataset, labels) if labels else {}
    if not captions and not maps:
        yield from samples
        return
    for sample in samples:
        yield replace(sample, references=captions.get(sample.id, ()), labels=maps.get(sample.id))


def _maps(samples: Sequence[Sample], root: Path, dataset: str, labels: Path) -> dict[str, Path]:
    if not labels.is_dir():
        raise ConfigError(f"no such folder of label maps: {labels}")
    wanted = {sample.id: labels / sample.path.relative_to(root).with_suffix(".png") for sample in samples}
    maps = {image: path for image, path in wanted.items() if path.is_file()}
    if not maps:
        first = next(iter(wanted.values()))
        raise ConfigError(f"{labels} has a label map for no image of {dataset!r}; the first would be {first}")
    return maps


# What ships

SOURCE = "https://r0k.us/graphics/kodak/kodak/"
BYTES = 15_394_305


@dataclass(frozen=True)
class Kodak(Pinned):
    """The 24 images of the Kodak Lossless True Color Image Suite, 768 x 512 and 512 x 768, 8 bit RGB.

    Every file is held against ``kodak.sha256``; lookalikes, such as the 500 x 500 crops that denoising papers use, are
    refused. Looked for in ``data.path=FOLDER``, in ``$RDPBENCH_DATA/kodak`` and in the cache; else downloaded there.

    >>> len(Kodak())
    24
    """

    name: str = "kodak"
    protocol: str = "as-is"
    path: str | None = None
    """A folder that holds ``kodim01.png`` to ``kodim24.png``."""
    source: str = SOURCE
    allow_partial: bool = False
    kind = "pinned"
    needs: ClassVar[tuple[Need, ...]] = ()
    licence: ClassVar[str] = "released by Eastman Kodak for unrestricted usage; no licence text"
    download_size: ClassVar[str] = f"{BYTES / 1e6:.0f} MB in 24 files"

    def missing(self) -> str | None:
        if self.path is not None or self._whole():
            return None
        return (
            f"Kodak is not here ({self.download_size}, free to use). Get {SOURCE} by hand and say data.path=FOLDER, or "
            f"put the folder 'kodak' into {variable('RDPBENCH_DATA')}, or the files into {data_folders('kodak')[-1]}"
        )

    def samples(self) -> Iterator[Sample]:
        """In order, with the sha256 that each must have."""
        if self.missing():
            self.fetch()
        folder = self._whole() or self.places()[-1]
        files = present(self.manifest.files, folder, "Kodak's 24 images", "", partial=self.allow_partial)
        for name, sha256 in files.items():
            yield Sample(Path(name).stem, folder / name, ("photo",), sha256)

    @property
    def manifest(self) -> Manifest:
        return _kodak()

    def places(self) -> list[Path]:
        if self.path is None:
            return data_folders("kodak")
        folder = Path(self.path).expanduser().absolute()
        if not folder.is_dir():
            raise ImageError(f"no such folder: {folder}, named by data.path={self.path}")
        return [folder]

    def fetch(self, beside: Sequence[str] = ()) -> None:
        """Download what is not here yet, each file checked."""
        for what in beside:
            raise ConfigError(f"{self.name} has no {what} to fetch")
        from rdpbench.assets.download import download

        hint = self.missing() or ""
        for name, sha256 in self.manifest.files.items():
            path = data_folders("kodak")[-1] / name
            if not path.is_file() or file_sha256(path) != sha256:
                path.unlink(missing_ok=True)
                download(self.source + name, path, sha256=sha256, size=BYTES // 24, hint=hint)

    def _whole(self) -> Path | None:
        """The first folder that has all files."""
        return next((f for f in self.places() if all((f / name).is_file() for name in self.manifest.files)), None)


@cache
def _kodak() -> Manifest:
    return Manifest.read(Path(__file__).with_name("kodak.sha256"))


@dataclass(frozen=True)
class Samples:
    """The offline default: eleven images that scikit-image and matplotlib carry, all free to use.

    Five photographs and six images that are none (text, a scan, medical, astronomy, a graphic): codecs that lean on
    pretrained models fail there first, so tables can be split by tag. Four images were JPEGs before (``jpeg-source``):
    they flatter JPEG a little. This set is for trying things; it is no benchmark that papers use.

    >>> len(Samples())
    11
    """

    name: str = "samples"
    protocol: str = "as-is"
    tag: str | None = None
    """Only the images with this tag, such as ``photo``."""
    licence: ClassVar[str] = "free to use, each as stated in samples.toml"
    download_size: ClassVar[str] = "in installed packages"
    needs: ClassVar[tuple[Need, ...]] = (Package("scikit-image", module="skimage"), Package("matplotlib"))

    def _images(self) -> dict[str, dict[str, Any]]:
        images = tomllib.loads(Path(__file__).with_name("samples.toml").read_text(encoding="utf-8"))
        return {name: image for name, image in images.items() if self.tag is None or self.tag in image["tags"]}

    def samples(self) -> Iterator[Sample]:
        """In the order of ``samples.toml``."""
        for name, image in self._images().items():
            package, _, below = image.get("folder", "skimage/data").partition("/")
            # find_spec does not import the package: scikit-image takes a while to import.
            spec = importlib.util.find_spec(package)
            assert spec is not None
            assert spec.submodule_search_locations is not None
            path = Path(spec.submodule_search_locations[0]) / below / name
            yield Sample(path.stem, path, tuple(image["tags"]), image["sha256"], caption=image["caption"])

    def pinned(self) -> Pin:
        """Hash of the names and hashes of the images that are asked for."""
        return Pin(manifest_sha256((name, image["sha256"]) for name, image in self._images().items()), "pinned")

    def here(self) -> Here:
        """All of it lies in installed packages."""
        return Here(len(self), "pinned", next(self.samples()).path.parent)

    def verify(self) -> list[str]:
        """Read every byte and say what differs from the manifest."""
        return differences({sample.path: sample.sha256 for sample in self.samples()})

    def __len__(self) -> int:
        return len(self._images())
