"""A manifest pins a dataset: one line a file, ``sha256  name`` as ``sha256sum`` writes it, in the order of the set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rdpbench.errors import ImageError


@dataclass(frozen=True)
class Manifest:
    """Names and hashes of the files of a set, in order."""

    files: dict[str, str]

    @classmethod
    def beside(cls, module_file: str, name: str) -> Manifest:
        """Read the manifest ``name`` that lies beside a dataset's module."""
        lines = (Path(module_file).parent / name).read_text().splitlines()
        pairs = (line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
        return cls({file: sha for sha, file in pairs})

    def sha256(self) -> str:
        """Hash of the whole manifest: pins names, order and contents."""
        return hashlib.sha256("".join(f"{sha}  {name}\n" for name, sha in self.files.items()).encode()).hexdigest()

    def check(self, folder: Path, name: str) -> Path:
        """Return ``folder / name`` if its bytes are the manifest's; raise `ImageError` that says what they are."""
        path = folder / name
        if not path.is_file():
            raise ImageError(f"{name} is missing in {folder}")
        found = file_sha256(path)
        if found != self.files[name]:
            raise ImageError(f"{path} is not the file of this set: sha256 {found}, expected {self.files[name]}")
        return path


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
