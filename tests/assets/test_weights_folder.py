"""Models of several files: found as a whole in one place, checked file by file, never mixed with another model."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from rdpbench.assets import weights
from rdpbench.assets.weights import Card, CardFolder, Weights, card_identity, fetch, read_tensors, resolve
from rdpbench.errors import MissingNeed

CONFIG = b'{"hidden_size": 8}'
MODEL = CardFolder(
    id="tiny-model",
    source="https://huggingface.co/someone/tiny-model",
    revision="main",
    parts=(("config.json", len(CONFIG), hashlib.sha256(CONFIG).hexdigest()), ("unet/model.safetensors", 0, None)),
    licence="MIT",
    note="a made-up model",
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
    return tmp_path


def tensors(value: float) -> bytes:
    import torch
    from safetensors.torch import save

    return save({"layer.weight": torch.full((2, 3), value)})


def put(root: Path, config: bytes | None = CONFIG, model: bytes | None = None) -> Path:
    for file, content in (("config.json", config), ("unet/model.safetensors", model or tensors(1))):
        if content is not None:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_bytes(content)
    return root


def test_the_order_of_places(home):
    hub = home / "hf" / "hub" / "models--someone--tiny-model"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("abc123")
    for root in (home / "own/weights/tiny-model", hub / "snapshots/abc123", home / "given/tiny-model"):
        put(root)  # worst first: each one that is added wins
        assert resolve(MODEL) == root


def test_files_of_two_places_are_not_put_together(home):
    (home / "given/tiny-model").mkdir(parents=True)
    (home / "given/tiny-model/config.json").write_bytes(CONFIG)
    with pytest.raises(MissingNeed, match=r"given/tiny-model lacks unet/model\.safetensors") as caught:
        resolve(MODEL)
    for part in (MODEL.source, "MIT", "not known", "config.json: sha256 " + str(MODEL.parts[0][2]), "not published"):
        assert part in str(caught.value) or part == "not known"
    assert Weights(MODEL).missing() == str(caught.value)
    whole = put(home / "own/weights/tiny-model")
    assert resolve(MODEL) == whole
    assert Weights(MODEL).missing() is None


def test_a_flipped_bit_in_any_file_is_found(home):
    root = put(home / "given/tiny-model")
    assert card_identity(MODEL).startswith("unpinned:")
    resolve(MODEL)
    pinned = card_identity(MODEL)
    damaged = bytearray(CONFIG)
    damaged[4] ^= 1
    put(root, config=bytes(damaged))
    with pytest.raises(MissingNeed, match="is not the file that its card names"):
        resolve(MODEL)
    put(root, model=tensors(2))
    with pytest.raises(MissingNeed, match=r"is not the file that .*weights\.lock names"):
        resolve(MODEL)
    put(root)
    assert resolve(MODEL) == root
    assert card_identity(MODEL) == pinned


def test_identity_covers_every_file():
    known = replace(MODEL, parts=(("a", 1, "0" * 64), ("b", 1, "1" * 64)))
    other = replace(MODEL, parts=(("a", 1, "0" * 64), ("b", 1, "2" * 64)))
    assert len(card_identity(known)) == 64
    assert card_identity(known) != card_identity(other)


def test_two_models_of_one_file_name_do_not_meet(home):
    cards = [
        Card(f"model-{name}", f"https://huggingface.co/x/{name}/resolve/main/model.safetensors", "main",
             "model.safetensors", "MIT", "x", hashlib.sha256(tensors(value)).hexdigest())
        for name, value in (("a", 1.0), ("b", 2.0))
    ]  # fmt: skip
    for card, value in zip(cards, (1.0, 2.0), strict=True):
        place = home / "given" / card.id / "model.safetensors"
        place.parent.mkdir(parents=True)
        place.write_bytes(tensors(value))
        assert weights.candidates(card)[0] == place
    assert [float(read_tensors(card)["layer.weight"].sum()) for card in cards] == [6.0, 12.0]


def test_tensors_of_a_folder(home):
    put(home / "given/tiny-model", model=tensors(4))
    assert float(read_tensors(MODEL)["layer.weight"].sum()) == 24


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(home, monkeypatch):
    put(home / "site/resolve/main")
    monkeypatch.setattr(
        Handler, "__init__", lambda self, *a: super(Handler, self).__init__(*a, directory=home / "site")
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield replace(MODEL, source=f"http://127.0.0.1:{running.server_address[1]}")
        running.shutdown()
        thread.join()


def test_download(home, server, capsys):
    root = fetch(server)
    assert root == home / "own/weights/tiny-model"
    assert (root / "config.json").read_bytes() == CONFIG
    assert fetch(server) == root
    pins = json.loads((home / "own/weights/weights.lock").read_text())
    assert list(pins) == ["tiny-model/unet/model.safetensors"]


def test_a_download_goes_on_where_it_was_cut(home, server, capsys):
    (home / "site/resolve/main/unet/model.safetensors").unlink()
    with pytest.raises(MissingNeed, match="404"):
        fetch(server)
    (home / "site/resolve/main/config.json").unlink()
    put(home / "site/resolve/main", config=None)
    assert fetch(server) == home / "own/weights/tiny-model"
