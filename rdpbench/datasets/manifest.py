"""A manifest pins a dataset by hashes: a line ``sha256 name`` for each file, as ``sha256sum`` writes it, in order.

Lines ``# key: value`` above say what the files are; ``sha256sum --check`` passes over them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from posixpath import normpath

from rdpbench.assets.hashes import file_facts
from rdpbench.errors import ConfigError, ImageError, few
from rdpbench.image import EXTENSIONS, read_header
from rdpbench.paths import write_file


@dataclass(frozen=True)
class Manifest:
    """Names and hashes of the files of a set, in order.

    >>> Manifest({"a.png": "0" * 64}).sha256()[:12]
    '215d311509f1'
    """

    files: dict[str, str]
    header: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            ConfigError: no such file, or a line that is none of a manifest.
        """
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read the manifest {path}: {error}") from error
        try:
            # Names may hold what else Python takes for the end of a line.
            lines = raw.decode().replace("\r\n", "\n").split("\n")
        except UnicodeDecodeError as error:
            number = raw.count(b"\n", 0, error.start)
            wrong = raw.split(b"\n")[number][:120]
            raise ConfigError(
                f"cannot read the manifest {path}: line {number + 1}, {wrong!r}, is not UTF-8; "
                "rename the file that it names, and list it again"
            ) from error
        files: dict[str, str] = {}
        places: set[str] = set()
        header: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            if line.startswith("#"):
                key, colon, value = line.lstrip("# ").partition(": ")
                if colon:
                    header[key] = value
            elif line.strip():
                sha256, name = _parse(line, f"{path}, line {number}")
                if (plain := normpath(name)) in places:
                    raise ConfigError(f"{path}, line {number}: {name!r} is there twice")
                files[name] = sha256
                places.add(plain)
        return cls(files, header)

    def write(self, path: Path) -> None:
        """Write the manifest in one step."""
        text = "".join(f"# {key}: {value}\n" for key, value in self.header.items())
        text += "".join(f"{sha256}  {name}\n" for name, sha256 in self.files.items())
        write_file(path, text)

    def sha256(self) -> str:
        """Hash of the lines: pins names, order and contents, whatever the header says."""
        return manifest_sha256(self.files.items())


def present(files: Mapping[str, str], folder: Path, whose: str, hint: str, *, partial: bool) -> dict[str, str]:
    """The files of a manifest that are in a folder.

    Raises:
        ImageError: all are missing, or some without ``partial``; begins with ``whose`` and ends in ``hint``.
    """
    here = {name: sha256 for name, sha256 in files.items() if (folder / name).is_file()}
    if not here or (len(here) < len(files) and not partial):
        missing = [name for name in files if name not in here]
        raise ImageError(
            f"{len(missing)} of {whose} are missing in {folder}: {few(missing)}; {hint}allow_partial=true goes on with "
            "what is there, and marks the results"
        )
    return here


def differences(files: Mapping[Path, str | None]) -> list[str]:
    """Files that are missing, have other bytes than their sha256 says, or are no images; reads every byte."""
    lines = [f"{path} is missing" for path in files if not path.is_file()]
    for path, facts in file_facts((path for path in files if path.is_file()), remembered=False):
        if files[path] and facts.sha256 != files[path]:
            lines.append(other_bytes(path, facts.sha256, files[path] or ""))
        elif not facts.height and path.suffix.lower() in EXTENSIONS:
            lines.append(f"{path} is no image")
    return lines


def manifest_sha256(files: Iterable[tuple[str, str]]) -> str:
    """Hash of a manifest with these names and hashes, in constant memory.

    >>> manifest_sha256([("a.png", "0" * 64)])[:12]
    '215d311509f1'
    """
    digest = hashlib.sha256()
    for name, sha256 in files:
        digest.update(f"{sha256}  {name}\n".encode())
    return digest.hexdigest()


def other_bytes(path: Path, found: str, expected: str) -> str:
    """What to say of a file with other bytes than the manifest's."""
    try:
        file_format, height, width = read_header(path)
        what = f"a {file_format} of {width} x {height} pixels"
    except ImageError:
        what = f"no image, {path.stat().st_size} bytes"
    return f"{path} is not the file of this set: sha256 {found}, expected {expected}; it is {what}"


def _parse(line: str, where: str) -> tuple[str, str]:
    sha256, _, name = line.partition(" ")
    name = name.strip().removeprefix("*")  # as sha256sum marks binary files
    if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not name:
        raise ConfigError(
            f"{where}: {line[:80]!r} is no 'sha256  name'; `rdpbench data manifest FOLDER` writes such a file"
        )
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ConfigError(f"{where}: {name!r} leads out of the folder")
    return sha256, name
