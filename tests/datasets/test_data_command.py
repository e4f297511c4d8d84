"""``rdpbench data``: ls, fetch, verify, manifest, as a user types them."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.datasets import command
from rdpbench.errors import ConfigError, MissingNeed, UnknownName

Data = Callable[..., int]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RDPBENCH_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser(prog="rdpbench data")
    command.add_arguments(parser)
    return lambda *arguments: command.run(parser.parse_args(arguments), None)


def test_ls_says_what_each_set_is_and_whether_it_is_here(
    data: Data, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "kodak").mkdir(parents=True)
    for number in (1, 2):
        shutil.copy(shared / "data" / "kodak" / f"kodim{number:02}.png", tmp_path / "data" / "kodak")
    (tmp_path / "data" / "div2k-valid").mkdir()
    for path in sorted((shared / "data" / "div2k_val_256").glob("*.png"))[:3]:
        shutil.copy(path, tmp_path / "data" / "div2k-valid")
    monkeypatch.setenv("RDPBENCH_DATA", str(tmp_path / "data"))
    assert data("ls") == 0
    lines = {line.split()[0]: " ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert len([name for name in lines if name.startswith(("clic", "coco", "div2k"))]) == 16
    assert lines["kodak"].startswith("kodak 24 as-is 15 MB in 24 files 2 of 24 (pinned) released by Eastman Kodak")
    assert lines["div2k-valid"].startswith("div2k-valid 100 as-is 449 MB 3 of 100 (names) for academic research")
    assert lines["coco-30k-perco"].startswith("coco-30k-perco 30,000 perco-512 19,337 MB no each image has its own")
    assert lines["samples"].startswith("samples 11 as-is in installed packages yes (pinned)")


def test_a_folder_is_pinned_by_a_manifest(data: Data, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(ConfigError, match=r"no list of files; to write one: rdpbench data manifest FOLDER"):
        data("verify", "folder:pictures")
    (tmp_path / "my pics").mkdir()
    with pytest.raises(ConfigError, match="type --name my-pics"):
        data("manifest", "my pics")


def test_a_variable_that_names_no_folder_is_told(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDPBENCH_DATA", "/nowhere")
    for name in ("kodak", "div2k-valid"):
        assert "$RDPBENCH_DATA (now /nowhere, which is no folder)" in command.named_dataset(name).missing()


def test_fetch_then_verify(
    data: Data, serve: Callable[[Path], str], shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"kodak is not here; type: rdpbench data fetch kodak"):
        data("verify", "kodak")
    assert data("fetch", "kodak", "--source", serve(shared / "data" / "kodak")) == 0
    printed = capsys.readouterr()
    assert "licence: released by Eastman Kodak for unrestricted usage" in printed.err
    assert "kodak is here: 24 images in" in printed.out
    assert data("verify", "kodak") == 0
    printed = capsys.readouterr()
    assert "kodak: 24 images, as they should be (pinned" in printed.out
    assert "manifest sha256 " in printed.out
    victim = tmp_path / "cache" / "data" / "kodak" / "kodim05.png"
    content = bytearray(victim.read_bytes())
    content[-20] ^= 1
    victim.write_bytes(content)
    (tmp_path / "cache" / "data" / "kodak" / "kodim09.png").unlink()
    assert data("verify", "kodak", "--path", str(victim.parent)) == 1
    out = capsys.readouterr().out
    assert "kodim05.png is not the file of this set: sha256 " in out
    assert "kodim09.png is missing" in out
    assert "kodak: 2 findings" in out


def test_verify_looks_at_a_folder_of_the_users(data: Data, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data("verify", "div2k-valid", "--path", str(shared / "data" / "div2k_val_256")) == 1
    assert "one side of a DIV2K HR image has 2040 pixels" in capsys.readouterr().out
    assert data("verify", "coco-val2017", "--path", str(shared / "data" / "coco"), "--allow-partial") == 0
    assert "(names: names, counts and sizes were checked" in capsys.readouterr().out


def test_fetch_without_network_says_what_to_do(data: Data) -> None:
    with pytest.raises(
        MissingNeed, match=r"(?s)cannot download.*put the archives into .*rdpbench data fetch div2k-valid"
    ):
        data("fetch", "div2k-valid", "--source", "http://127.0.0.1:9/")
    with pytest.raises(ConfigError, match=r"kodak has no captions to fetch"):
        data("fetch", "kodak", "--with", "captions")
    with pytest.raises(UnknownName, match=r"unknown dataset 'kodack': did you mean 'kodak'"):
        data("fetch", "kodack")


def test_a_manifest_pins_a_folder(
    data: Data, images: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = images(3, name="pictures")
    assert data("manifest", str(folder)) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "pictures.sha256: 3 images; use it with data=manifest:pictures.sha256"
    assert data("verify", "manifest:pictures.sha256") == 0
    assert printed[1] in capsys.readouterr().out.splitlines()
    with pil.open(folder / "image01.png") as opened:
        pixels = np.array(opened)
    pixels[3, 3] ^= 1
    pil.fromarray(pixels).save(folder / "image01.png")
    assert data("verify", "manifest:pictures.sha256") == 1
    assert "image01.png is not the file of this set" in capsys.readouterr().out
    assert data("manifest", str(folder), "--name", "other", "-o", str(tmp_path / "far" / "other.sha256")) == 0
    assert "# name: other" in (tmp_path / "far" / "other.sha256").read_text()
