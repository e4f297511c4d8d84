"""Unpacking: honest archives come out whole; each kind of hostile or damaged one is refused and leaves nothing."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from rdpbench.assets import archive as archive_formats
from rdpbench.assets.archive import unpack_zip
from rdpbench.errors import ImageError, MissingNeed

ROOT = Path(__file__).parents[2]
NOISE = random.Random(0)
FILES = {f"set/{name}.png": NOISE.randbytes(size) for name, size in (("a", 5000), ("b", 0), ("c", 2048), ("d", 30))}
LITTER = {"__MACOSX/set/._a.png": b"x", "set/.DS_Store": b"x", "set/Thumbs.db": b"x", "set/._c.png": b"x"}
HASHES = {name.removeprefix("set/"): hashlib.sha256(data).hexdigest() for name, data in FILES.items()}

Members = dict[str, bytes]
Maker = Callable[[Path, Members], Path]


def zipped(path: Path, members: Members, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("set")
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def stored(path: Path, members: Members) -> Path:
    return zipped(path, members, zipfile.ZIP_STORED)


MAKERS = [zipped, stored]


def wanted(name: str) -> str | None:
    return name.removeprefix("set/") if name.endswith(".png") else None


def take(path: Path, tmp_path: Path, **given: object) -> dict[str, str]:
    settings = {"wanted": wanted, "limit_bytes": 10**7} | given
    return unpack_zip(path, tmp_path / "out" / "set", **settings)  # type: ignore[arg-type]


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.endswith(".lock"))


def refused(path: Path, tmp_path: Path, match: str, **given: object) -> str:
    """The archive is refused with a message that names it, and nothing is left of it."""
    with pytest.raises(ImageError, match=match) as caught:
        take(path, tmp_path, **given)
    assert str(path) in str(caught.value)
    assert left(tmp_path) == []
    return str(caught.value)


@pytest.mark.parametrize("make", MAKERS)
def test_an_honest_archive(make: Maker, tmp_path: Path) -> None:
    path = make(tmp_path / "archive", FILES | LITTER | {"set/readme.txt": b"hello"})
    told: list[tuple[int, int]] = []
    assert take(path, tmp_path, progress=lambda here, whole: told.append((here, whole))) == HASHES
    folder = tmp_path / "out" / "set"
    assert {f"set/{path.name}": path.read_bytes() for path in folder.iterdir()} == FILES
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["set"]
    whole = sum(map(len, FILES.values()))
    assert told == sorted(told)
    assert told[-1] == (whole, whole)


@pytest.mark.parametrize("make", MAKERS)
def test_names_are_mapped_into_folders(make: Maker, tmp_path: Path) -> None:
    path = make(tmp_path / "archive", FILES)
    asked: list[str] = []

    def deeper(name: str) -> str | None:
        asked.append(name)
        return f"one/two/{name}" if name.endswith("a.png") else None

    assert list(take(path, tmp_path, wanted=deeper)) == ["one/two/set/a.png"]
    assert (tmp_path / "out/set/one/two/set/a.png").read_bytes() == FILES["set/a.png"]
    assert asked == list(FILES)


@pytest.mark.parametrize("make", MAKERS)
def test_litter_is_never_asked_for(make: Maker, tmp_path: Path) -> None:
    path = make(tmp_path / "archive", LITTER)
    refused(path, tmp_path, "none of its 0 files is part of the set; it holds nothing", wanted=lambda name: name)


def test_an_archive_without_wanted_files_says_what_it_holds(tmp_path: Path) -> None:
    path = zipped(tmp_path / "archive", {f"x{number}.txt": b"" for number in range(9)})
    refused(path, tmp_path, r"none of its 9 files is part of the set; it holds 'x0.txt', 'x1.txt', .*'x4.txt'$")


HOSTILE_NAMES = {
    "/etc/x.png": "leads out of the folder",
    "../x.png": "leads out of the folder",
    "set/../../x.png": "leads out of the folder",
    "set/..": "leads out of the folder",
    "C:/x.png": "leads out of the folder",
    "c:x.png": "leads out of the folder",
    "set\\x.png": "backslash",
    "..\\x.png": "backslash",
    "set/x\n.png": "control characters",
    "set/x\x1b[2J.png": "control characters",
    "set/x\u202egnp.exe": "control characters",
    "set/x\x7f.png": "control characters",
}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("asked", [True, False])
def test_names_that_mean_another_place(make: Maker, name: str, asked: bool, tmp_path: Path) -> None:
    path = make(tmp_path / "archive", FILES | {name: b"evil"})
    said = refused(path, tmp_path, HOSTILE_NAMES[name], wanted=(lambda name: name) if asked else wanted)
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_a_name_with_a_nul(tmp_path: Path) -> None:
    path = stored(tmp_path / "archive", FILES | {"set/xQ.png": b"evil"})
    path.write_bytes(path.read_bytes().replace(b"set/xQ.png", b"set/x\0.png"))
    refused(path, tmp_path, r"'set/x\\x00.png' has control characters")


def test_where_files_go_is_judged_too(tmp_path: Path) -> None:
    path = zipped(tmp_path / "archive", FILES)
    refused(path, tmp_path, "leads out of the folder", wanted=lambda name: f"../../{name}")
    refused(path, tmp_path, "'set/b.png' and 'set/a.png' have the same name", wanted=lambda name: "same.png")
    with pytest.raises(ZeroDivisionError):  # a fault of the caller is not taken for damage
        take(path, tmp_path, wanted=lambda name: str(1 // 0))
    with pytest.raises(KeyError):
        take(path, tmp_path, wanted={}.__getitem__)
    assert left(tmp_path) == []


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(("one", "other"), [("x.txt", "X.txt"), ("stra\u00dfe", "STRASSE"), ("e\u0301.x", "\u00e9.x")])
def test_names_that_are_one_on_some_disks(make: Maker, one: str, other: str, tmp_path: Path) -> None:
    refused(make(tmp_path / "archive", FILES | {one: b"", other: b""}), tmp_path, "have the same name on some disks")


def test_a_name_that_is_there_twice(tmp_path: Path) -> None:
    path = zipped(tmp_path / "archive", FILES | {"set/./a.png": b""})
    refused(path, tmp_path, "'set/a.png' and 'set/a.png' have the same")
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("a.png", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", b"2")
    refused(tmp_path / "archive", tmp_path, "'a.png' and 'a.png' have the same name")


def test_a_file_where_a_folder_must_be(tmp_path: Path) -> None:
    refused(zipped(tmp_path / "archive", {"x.png": b"1", "x.png/y.png": b"2"}), tmp_path, "cannot unpack .*x.png")


@pytest.mark.parametrize(
    ("mode", "named"),
    [(stat.S_IFLNK, "a symbolic link"), (stat.S_IFCHR, "a device"), (stat.S_IFSOCK, "a special file")],
)
def test_a_zip_with_something_that_is_no_file(mode: int, named: str, tmp_path: Path) -> None:
    path = zipped(tmp_path / "archive", FILES)
    info = zipfile.ZipInfo("set/x.png")
    info.external_attr = (mode | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    refused(path, tmp_path, f"'set/x.png' is {named}")


def directory_at(data: bytes, name: bytes) -> int:
    """Where a zip's directory speaks of a name."""
    at = data.rindex(name) - 46
    assert data[at : at + 4] == b"PK\1\2"
    return at


def patched(path: Path, name: str, offset: int, form: str, value: int) -> Path:
    """Change one field of an entry of a zip's directory."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, directory_at(data, name.encode()) + offset, value)
    path.write_bytes(data)
    return path


def test_encrypted_entries_and_other_methods(tmp_path: Path) -> None:
    refused(patched(zipped(tmp_path / "archive", FILES), "set/a.png", 8, "<H", 1), tmp_path, "'set/a.png' is encrypted")
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        refused(zipped(tmp_path / "archive", FILES, method), tmp_path, f"compressed by method {method}; read are 0")


# Lies about sizes, and bombs

BIG = bytes(3_000_000)


@pytest.mark.parametrize("make", [zipped, stored])
@pytest.mark.parametrize("declared", [10, 4999, 5001, 2**31])
def test_a_zip_that_lies_about_a_size(make: Maker, declared: int, tmp_path: Path) -> None:
    path = patched(make(tmp_path / "archive", FILES), "set/a.png", 24, "<L", declared)
    refused(path, tmp_path, r"is damaged at 'set/a.png'|a bomb|bytes, allowed are")


def test_a_zip_that_declares_little_and_inflates_to_much(tmp_path: Path) -> None:
    path = zipped(tmp_path / "archive", FILES | {"set/big.png": BIG})
    patched(path, "set/big.png", 24, "<L", 100)
    refused(path, tmp_path, "is damaged at 'set/big.png': Bad CRC-32")
    # With the check sum of what it declares it is a file of 100 bytes, and no more than that is ever written.
    patched(path, "set/big.png", 16, "<L", zlib.crc32(BIG[:100]))
    written: list[int] = []
    found = take(path, tmp_path, progress=lambda here, whole: written.append(here))
    assert found["big.png"] == hashlib.sha256(BIG[:100]).hexdigest()
    assert written[-1] == sum(map(len, FILES.values())) + 100


def test_bombs(tmp_path: Path) -> None:
    refused(zipped(tmp_path / "archive", {"x.png": BIG}), tmp_path, r"'x.png' is a bomb: 3000000 bytes out of \d{4}$")
    assert take(stored(tmp_path / "archive", {"x.png": BIG}), tmp_path)  # not compressed: nothing explodes


@pytest.mark.parametrize("make", MAKERS)
def test_limits(make: Maker, tmp_path: Path) -> None:
    path = make(tmp_path / "archive", FILES)
    whole = sum(map(len, FILES.values()))
    refused(path, tmp_path, f"more than the {whole - 1} bytes that are allowed", limit_bytes=whole - 1)
    refused(path, tmp_path, "'set/a.png' has 5000 bytes, allowed are 4999", limit_file_bytes=4999)
    refused(path, tmp_path, "more than 4 entries", limit_files=4)
    assert take(path, tmp_path, limit_bytes=whole, limit_file_bytes=5000, limit_files=5) == HASHES


def test_entries_that_share_their_bytes(tmp_path: Path) -> None:
    path = stored(tmp_path / "archive", FILES)
    refused(patched(path, "set/c.png", 42, "<L", 36), tmp_path, "shares its bytes with another entry")
    path = stored(tmp_path / "archive", FILES)
    refused(patched(path, "set/d.png", 20, "<L", 10**6), tmp_path, "an entry overlaps the directory of the zip")


def test_a_directory_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_formats, "_LONGEST_READ", 1 << 16)
    path = zipped(tmp_path / "archive", {f"{'x' * 200}{number}": b"" for number in range(500)})
    refused(path, tmp_path, r"its directory has \d{6} bytes, allowed are 65536", limit_files=100)


# Damage


@pytest.mark.parametrize("make", MAKERS)
def test_truncated_anywhere(make: Maker, tmp_path: Path) -> None:
    whole = make(tmp_path / "archive", FILES).read_bytes()
    path = tmp_path / "cut"
    for size in [*range(1, 60), *range(60, len(whole), 97), *range(len(whole) - 40, len(whole))]:
        path.write_bytes(whole[:size])
        refused(path, tmp_path, "is damaged|is no zip")


def take_or_none(path: Path, tmp_path: Path) -> dict[str, str] | None:
    """What comes out, if anything does; it is then cleared away."""
    try:
        found = take(path, tmp_path)
    except ImageError:
        assert left(tmp_path) == []
        return None
    shutil.rmtree(tmp_path / "out" / "set")
    return found


def test_a_flipped_byte_never_gives_other_bytes(tmp_path: Path) -> None:
    small = {f"set/{name}.png": NOISE.randbytes(40) for name in "abc"}
    right = {name.removeprefix("set/"): hashlib.sha256(data).hexdigest() for name, data in small.items()}
    whole = zipped(tmp_path / "archive", small).read_bytes()
    path = tmp_path / "flipped"
    passed = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        found = take_or_none(path, tmp_path)
        # A name may change or vanish; bytes under a name do not.
        assert found is None or set(found.values()) <= set(right.values())
        passed += found == right
    assert passed < len(whole) * 0.6  # times and modes of a zip are nobody's business


def test_a_wrong_check_sum_names_the_file(tmp_path: Path) -> None:
    path = patched(zipped(tmp_path / "archive", FILES), "set/c.png", 16, "<L", 1)
    refused(path, tmp_path, "is damaged at 'set/c.png': Bad CRC-32")


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "page.zip").write_bytes(b"<!DOCTYPE html><p>log in")
    refused_text = r"is no zip: it begins with b'<!DOCTYPE html>"
    (tmp_path / "out").mkdir()
    refused(tmp_path / "page.zip", tmp_path, refused_text)
    (tmp_path / "empty.zip").write_bytes(b"")
    refused(tmp_path / "empty.zip", tmp_path, "is no zip: it begins with b''")
    with pytest.raises(ImageError, match="no such archive"):
        take(tmp_path / "gone.zip", tmp_path)


# Folders, disks and processes


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    path = zipped(tmp_path / "archive", FILES)
    (tmp_path / "out" / "set").mkdir(parents=True)
    assert take(path, tmp_path) == HASHES  # an empty one is filled
    (tmp_path / "out" / "set" / "a.png").write_bytes(b"mine")
    with pytest.raises(ImageError, match="holds something already; remove it"):
        take(path, tmp_path)
    assert (tmp_path / "out" / "set" / "a.png").read_bytes() == b"mine"
    assert left(tmp_path) == ["set"]


def test_disk_is_checked_for_what_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "archive", FILES | {"set/large.txt": NOISE.randbytes(100_000)})
    whole = sum(map(len, FILES.values()))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=whole - 1))
    with pytest.raises(MissingNeed, match=r"archive unpacks to 0 MB and .* has 0 MB left"):
        take(path, tmp_path)
    assert left(tmp_path) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=whole))
    assert take(path, tmp_path) == HASHES


SCRIPT = """
import json, sys, time
from pathlib import Path
from rdpbench.assets.archive import unpack_zip
def slow(here, whole):
    Path(sys.argv[2] + ".begun").touch()
    time.sleep(float(sys.argv[3]))
found = unpack_zip(Path(sys.argv[1]), Path(sys.argv[2]), wanted=lambda name: name, limit_bytes=10**7, progress=slow)
print(json.dumps(sorted(found.values())))
"""


def start(path: Path, folder: Path, pause: float) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", SCRIPT, str(path), str(folder), str(pause)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not folder.with_name(f"{folder.name}.begun").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def test_a_kill_leaves_nothing_that_looks_whole_and_the_next_call_cleans_up(tmp_path: Path) -> None:
    path = zipped(tmp_path / "archive", FILES)
    (tmp_path / "out").mkdir()
    process = start(path, tmp_path / "out" / "set", 30)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (tmp_path / "out" / "set.begun").unlink()
    assert left(tmp_path) == [".set.unpacking"]
    (tmp_path / "out" / ".set.unpacking" / "of an older version.png").touch()
    assert take(path, tmp_path) == HASHES
    assert left(tmp_path) == ["set"]
    assert sorted(path.name for path in (tmp_path / "out" / "set").iterdir()) == sorted(HASHES)


def test_of_two_processes_the_second_waits_and_returns_the_files_of_the_first(tmp_path: Path) -> None:
    path = zipped(tmp_path / "archive", FILES)
    (tmp_path / "out").mkdir()
    process = start(path, tmp_path / "out" / "set", 0.1)
    found = take(path, tmp_path, wanted=lambda name: pytest.fail("it unpacks again"))
    assert sorted(found.values()) == sorted(HASHES.values())
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert json.loads(said) == sorted(HASHES.values())
