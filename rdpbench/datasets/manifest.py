"""``manifest:FILE``: a set of one's own that a manifest pins, as `rdpbench data manifest FOLDER` writes it.

Names in it are relative to the folder of the images: ``data.path=FOLDER``, or the one that its line ``# folder:`` names
below the manifest's own, or that one. ``# name:`` and ``# protocol:`` name the set and what is done to its images,
``# references:`` and ``# labels:`` what lies beside them (`rdpbench.datasets.beside`), below the manifest's folder.

A manifest pins a dataset: one line a file, ``sha256  name`` as ``sha256sum`` writes it, in the order of the set.

Lines ``# key: value`` above say what the files are; ``sha256sum --check`` passes over them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from rdpbench.assets.hashes import file_sha256
from rdpbench.errors import ConfigError, ImageError
from rdpbench.image import read_header
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
    def beside(cls, module_file: str, name: str) -> Manifest:
        """Read the manifest ``name`` that lies beside a dataset's module."""
        return cls.read(Path(module_file).parent / name)

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
        header: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            if line.startswith("#"):
                key, colon, value = line.lstrip("# ").partition(": ")
                if colon:
                    header[key] = value
            elif line.strip():
                sha256, name = _entry(line, f"{path}, line {number}")
                if name in files:
                    raise ConfigError(f"{path}, line {number}: {name!r} is there twice")
                files[name] = sha256
        return cls(files, header)

    def write(self, path: Path) -> None:
        """Write the manifest in one step."""
        text = "".join(f"# {key}: {value}\n" for key, value in self.header.items()) + self.lines()
        write_file(path, text)

    def lines(self) -> str:
        """One line a file."""
        return "".join(f"{sha}  {name}\n" for name, sha in self.files.items())

    def sha256(self) -> str:
        """Hash of the lines: pins names, order and contents, whatever the header says."""
        return manifest_sha256(self.files.items())

    def check(self, folder: Path, name: str) -> Path:
        """Return ``folder / name`` if its bytes are the manifest's; raise `ImageError` that says what they are."""
        path = folder / name
        if not path.is_file():
            raise ImageError(f"{name} is missing in {folder}")
        found = file_sha256(path)
        if found != self.files[name]:
            raise ImageError(other_bytes(path, found, self.files[name]))
        return path


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
    return f"{path} is not the file of this set: sha256 {found}, expected {expected}; it is {_describe(path)}"


def _describe(path: Path) -> str:
    try:
        file_format, height, width = read_header(path)
    except ImageError:
        return f"no image, {path.stat().st_size} bytes"
    return f"a {file_format} of {width} x {height} pixels"


def _entry(line: str, where: str) -> tuple[str, str]:
    sha256, _, name = line.partition(" ")
    name = name.strip().removeprefix("*")  # as sha256sum marks binary files
    if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not name:
        raise ConfigError(f"{where}: {line[:80]!r} is no 'sha256  name'")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ConfigError(f"{where}: {name!r} leads out of the folder")
    return sha256, name
