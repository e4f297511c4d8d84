"""Programs that encode and decode files or folders, as a YAML file declares them with argument lists.

Each call gets a fresh temporary folder, which is removed however the call ends. Images are PNG files whose names are
hashes, so that a decoder cannot look an original up by its name; the folder that a decoder works in holds bitstreams
alone. What a program leaves running is killed when it ends.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import field, fields, make_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from rdpbench.assets.hashes import content_sha256
from rdpbench.assets.program import finish, quoted
from rdpbench.codecs.contract import FLOAT_LIBRARIES, Bitstream, Rate, Side
from rdpbench.codecs.external.declared import Declaration, files_in, fill_in_rate, in_full, wrapped
from rdpbench.codecs.external.environment import HOST, clean_environment, packages_of, source_identity
from rdpbench.codecs.external.hosted import prefix
from rdpbench.codecs.external.pictures import Aside
from rdpbench.errors import CoderFailed
from rdpbench.image import Image, pixel_sha256, read_image
from rdpbench.lazy import pil
from rdpbench.own import read_file
from rdpbench.setting import digits

Outcome = Bitstream | CoderFailed
_STEM = 16


class Ended(NamedTuple):
    """A call of a program that ended well."""

    command: str
    printed: str

    def failure(self, why: str) -> CoderFailed:
        """The error for what it did not do, with what it printed."""
        return CoderFailed(f"{why}\n  command: {self.command}{quoted(self.printed)}")


@cache
def can_go_offline() -> bool:
    """Does the system let a process leave the network?"""
    with suppress(OSError, subprocess.SubprocessError):
        line = [sys.executable, str(HOST), "--offline", "true"]
        return subprocess.run(line, capture_output=True, timeout=30, check=False).returncode == 0
    return False


class ProgramsCodec:
    """A pair of programs; `programs_class` makes the fields, which are its rate and its options."""

    declared: ClassVar[Declaration]
    python: ClassVar[str]
    source: ClassVar[str]
    rate: ClassVar[Rate | None]
    grade: ClassVar[str]
    heavy = True
    any_size = True
    depends_on_cpu = FLOAT_LIBRARIES

    def __post_init__(self) -> None:
        if self.rate:
            fill_in_rate(self, self.rate.field)

    def encode(self, image: Image, side: Side) -> Bitstream:
        [outcome] = self.encode_batch([image], [side])
        if isinstance(outcome, CoderFailed):
            raise outcome
        return outcome

    def encode_batch(self, images: Sequence[Image], sides: Sequence[Side]) -> list[Outcome]:
        """A bitstream for each image, or why there is none.

        Raises:
            CoderFailed: the program failed, so that nobody knows which of its outputs are whole.
        """
        declared, stems = self.declared, [pixel_sha256(image)[:_STEM] for image in images]
        single = declared.shape == "file"
        with _Folder(["images", "streams", "reconstructions", "discard"]) as folder:
            for stem, image in zip(stems, images, strict=True):
                pil.fromarray(image).save(folder / "images" / f"{stem}.png", compress_level=1)
            captions = {stem: side.caption for stem, side in zip(stems, sides, strict=True)}
            (folder / "captions.json").write_text(json.dumps(captions))
            names = [declared.stream.format(stem=stem) for stem in stems]
            places = {"captions": str(folder / "captions.json"), "seed": str(sides[0].seed)}
            pictures = [declared.reconstruction.format(stem=stem) for stem in stems]
            places |= self._places(folder, [f"{stems[0]}.png", names[0], pictures[0]] if single else None)
            ended = self._run(declared.encode, folder, places, offline=False)
            outcomes: list[Outcome] = []
            beside: list[tuple[bytes, Image | CoderFailed]] = []
            for stem, name, picture in zip(stems, names, pictures, strict=True):
                path = folder / "streams" / name
                data = path.read_bytes() if path.is_file() else b""
                if not data:
                    what = "no bytes" if path.is_file() else "nothing"
                    outcomes.append(ended.failure(f"{declared.name} wrote {what} to {name}"))
                    continue
                info = {"command": _readable(ended.command, folder, stem)}
                info |= self._stated("encode", ended.printed, path)
                outcomes.append(Bitstream.whole(data, **info))
                if not declared.decode:
                    beside.append((data, _picture(folder / "reconstructions" / picture, declared.name)))
            _joint.put(beside)
            return outcomes

    def decode(self, data: bytes) -> Image:
        [outcome] = self.decode_batch([data])
        if isinstance(outcome, CoderFailed):
            raise outcome
        return outcome

    def decode_batch(self, datas: Sequence[bytes]) -> list[Image | CoderFailed]:
        """An image for each bitstream, or why there is none; `CoderFailed` if the program failed."""
        declared = self.declared
        if not declared.decode:
            waiting = [_joint.take(data) for data in datas]
            why = f"{declared.name} has no decoder: its pictures come from the encoder alone, and are kept with the run"
            return [CoderFailed(why) if picture is None else picture for picture in waiting]
        stems = [hashlib.sha256(data).hexdigest()[:_STEM] for data in datas]
        with _Folder(["streams", "reconstructions", "discard"]) as folder:
            names = [declared.stream.format(stem=stem) for stem in stems]
            pictures = [declared.reconstruction.format(stem=stem) for stem in stems]
            for name, data in zip(names, datas, strict=True):
                (folder / "streams" / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / "streams" / name).write_bytes(data)
            places = self._places(folder, ["", names[0], pictures[0]] if declared.shape == "file" else None)
            ended = self._run(declared.decode, folder, places, offline=True)
            self._told.update(self._stated("decode", ended.printed, folder / "streams" / names[0]))
            results = (_picture(folder / "reconstructions" / picture, declared.name) for picture in pictures)
            return [ended.failure(str(each)) if isinstance(each, CoderFailed) else each for each in results]

    def coder(self) -> dict[str, str]:
        """The interpreter's packages, the state of ``source``, and programs and scripts by their content."""
        stated = packages_of(self.python) if self.python else {}
        stated |= {"source": source_identity(Path(self.source), self.declared.path)} if self.source else {}
        for kind in ("wrap", "encode", "decode"):
            for number, word in enumerate(getattr(self.declared, kind)):
                path = Path(shutil.which(word) or "" if number == 0 else word)
                if path.is_absolute() and path.is_file():
                    # A script with what it imports from its folder.
                    sha256 = read_file(path).sha256 if path.suffix == ".py" else content_sha256(path)
                    stated[f"{kind} {number} {path.name}"] = f"sha256:{sha256}"
        return stated

    def decode_notes(self) -> dict[str, str]:
        """What is to be read beside a row: what kept the decoder from all but the bytes, and seconds that it states."""
        if self.grade != "decoded":
            return {}
        offline = ", no network" if can_go_offline() else ""
        return {"enforced": f"other process, empty folder{offline}", **self._told}

    @property
    def _told(self) -> dict[str, str]:
        return vars(self).setdefault("_texts", {})  # a frozen dataclass

    def _places(self, folder: Path, files: Sequence[str] | None) -> dict[str, str]:
        """Values of the placeholders; of a program for one image these are files, else folders."""
        kinds = ("images", "streams", "reconstructions")
        paths = {kind: folder / kind / name for kind, name in zip(kinds, files or ("", "", ""), strict=True)}
        places = {kind: str(path) for kind, path in paths.items()} | {"discard": str(folder / "discard")}
        values = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        options = {name: digits(value) if isinstance(value, float) else str(value) for name, value in values.items()}
        rate = {"rate": options[self.rate.field]} if self.rate else {}
        return {**options, **rate, **places, "python": self.python, "source": self.source}

    def _run(self, words: Sequence[str], folder: Path, places: Mapping[str, str], *, offline: bool) -> Ended:
        """Run a program with ``folder`` for its temporary files."""
        line = [*self.declared.wrap, *(word.format_map(places) for word in words)]
        env = {name: str(value).format_map(places) for name, value in self.declared.env.items()}
        if offline:
            env = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", **env}
        if self.source:  # scripts of a repository look for its modules and files from its root
            env = {"PYTHONPATH": self.source, **env}
        command = shlex.join(line)
        real = [sys.executable, str(HOST), "--offline", *line] if offline and can_go_offline() else line
        how: dict[str, Any] = {"cwd": self.source or folder, "env": clean_environment(TMPDIR=str(folder), **env)}
        name, together = Path(line[0]).name, subprocess.STDOUT
        printed, _ = finish(real, self.declared.timeout_s, name, command, stderr=together, **how)
        return Ended(command, printed)

    def _stated(self, what: str, printed: str, stream: Path) -> dict[str, str]:
        """Seconds that the program says it took."""
        text = ""
        if self.declared.time == "file":
            path = stream.with_name(f"{stream.name}.time")
            text = path.read_text(errors="replace").strip() if path.is_file() else ""
        elif self.declared.time and (match := re.search(self.declared.time, printed)):
            text = match[1]
        return {f"{what} seconds stated": text[:40]} if text else {}


_joint: Aside[Image | CoderFailed] = Aside()
"""Pictures that an encoder wrote beside its bitstreams."""


def _picture(path: Path, name: str) -> Image | CoderFailed:
    if not path.is_file():
        return CoderFailed(f"{name} wrote nothing to {path.name}")
    return read_image(path).pixels


def _readable(command: str, folder: Path, stem: str) -> str:
    """A command line without the names of a temporary folder."""
    return command.replace(f"{folder}/", "").replace(stem, "image")


class _Folder(tempfile.TemporaryDirectory[str]):
    """A temporary folder with folders in it; some scripts delete what they are given, which is no fault."""

    def __init__(self, inside: Sequence[str]) -> None:
        super().__init__(prefix=prefix(), ignore_cleanup_errors=True)
        self._inside = inside

    def __enter__(self) -> Path:  # type: ignore[override]  # a path is what everybody makes of the text
        folder = Path(super().__enter__()).resolve()
        for name in self._inside:
            (folder / name).mkdir()
        return folder


def programs_class(declared: Declaration, apart: Mapping[str, Any]) -> type[ProgramsCodec]:
    """The codec of a declaration of programs; its fields are the rate, the options, and the device where it is used."""
    beside = declared.path.parent
    wrap, encode, decode = (wrapped(line, beside) for line in (declared.wrap, declared.encode, declared.decode))
    declared = replace(declared, wrap=wrap, encode=encode, decode=decode)
    words = " ".join([*declared.encode, *declared.decode])
    made: list[tuple[str, Any, Any]] = []
    axis = None
    if declared.rate_field:
        points = declared.rates
        axis = Rate(declared.rate_field, min(points), max(points), 0, declared.rises, points, listed=True)
        made.append((declared.rate_field, float, field(default=points[0])))
    folders = [beside, *([Path(apart["source"])] if apart.get("source") else [])]
    options = in_full(declared.options, *folders)
    files = set(files_in(options))
    made += [(name, Path | str if name in files else object, field(default=options[name])) for name in options]
    if "{device}" in words:
        made.append(("device", str, field(default="cpu")))
    attributes = {
        "declared": declared,
        "python": apart.get("python", ""),
        "source": apart.get("source", ""),
        "rate": axis,
        "batches": declared.shape == "folder",
        "uses_device": "{device}" in words,
        "uses_caption": "{captions}" in words,
        "seeded": "{seed}" in words,
        "grade": "decoded" if declared.decode else "joint",
        "__module__": __name__,
    }
    name = re.sub(r"\W", "_", declared.name)
    return make_dataclass(name, made, bases=(ProgramsCodec,), namespace=attributes, frozen=True)
