"""Kodak: found where the user says, downloaded from a real server, lookalikes refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image as pil

from rdpbench.cli import main
from rdpbench.datasets.folder import Kodak
from rdpbench.datasets.index import index
from rdpbench.errors import ImageError, MissingNeed


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RDPBENCH_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_without_network_one_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingNeed) as caught:
        list(Kodak(source="http://127.0.0.1:9/").samples())
    text = str(caught.value)
    assert "cannot download http://127.0.0.1:9/kodim01.png" in text
    assert "15 MB in 24 files" in text
    assert "data.path=FOLDER" in text
    assert "$RDPBENCH_DATA" in text


def test_a_download_is_whole_checked_and_used_again(serve, shared: Path, tmp_path: Path, capsys) -> None:
    address = serve(shared / "data" / "kodak")
    samples = list(Kodak(source=address).samples())
    assert [sample.id for sample in samples] == [f"kodim{number:02}" for number in range(1, 25)]
    assert len(capsys.readouterr().err.splitlines()) == 24
    assert samples[0].path.parent == tmp_path / "cache" / "data" / "kodak"
    # Here now: no server is asked again.
    assert list(Kodak(source="http://127.0.0.1:9/").samples()) == samples


def test_an_interrupted_download_fetches_the_rest(serve, shared: Path, tmp_path: Path, capsys) -> None:
    here = tmp_path / "cache" / "data" / "kodak"
    here.mkdir(parents=True)
    for number in range(1, 20):
        shutil.copy(shared / "data" / "kodak" / f"kodim{number:02}.png", here)
    (here / "kodim03.png").write_bytes(b"half")
    assert len(list(Kodak(source=serve(shared / "data" / "kodak")).samples())) == 24
    assert len(capsys.readouterr().err.splitlines()) == 6


def test_other_bytes_are_refused(serve, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    pil.new("RGB", (500, 500)).save(tmp_path / "served" / "kodim01.png")
    with pytest.raises(MissingNeed, match=r"gave other bytes: sha256 \w+, expected a56e27cb"):
        list(Kodak(source=serve(tmp_path / "served")).samples())
    assert not list((tmp_path / "cache").rglob("*.p*"))


def test_a_lookalike_folder_is_refused_by_name(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kodak"
    shutil.copytree(shared / "data" / "kodak", folder)
    with pil.open(folder / "kodim07.png") as opened:
        pixels = opened.copy()
    pixels.putpixel((0, 0), (1, 2, 3))
    pixels.save(folder / "kodim07.png")
    with pytest.raises(ImageError, match=r"kodim07.png is not the file of this set: sha256 \w+, expected"):
        index(Kodak(path=str(folder)))


def test_the_500_pixel_crops_are_refused_for_what_they_are(shared: Path, tmp_path: Path) -> None:
    """Denoising papers use crops of Kodak under the same names."""
    folder = tmp_path / "kodak"
    folder.mkdir()
    for path in sorted((shared / "data" / "kodak").glob("*.png")):
        with pil.open(path) as opened:
            opened.crop((0, 0, 500, 500)).save(folder / path.name, compress_level=0)
    with pytest.raises(ImageError) as caught:
        index(Kodak(path=str(folder)))
    text = str(caught.value)
    assert "24 of 24 images of 'kodak' are not those of the set" in text
    assert "it is a PNG of 500 x 500 pixels" in text
    assert "and 4 more" in text


def test_a_part_of_kodak_counts_only_on_the_users_word(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kodak"
    folder.mkdir()
    for number in (3, 7):
        shutil.copy(shared / "data" / "kodak" / f"kodim{number:02}.png", folder)
    with pytest.raises(ImageError, match=r"22 of Kodak's 24 images are missing .*kodim01.png.*allow_partial=true"):
        index(Kodak(path=str(folder)))
    part = Kodak(path=str(folder), allow_partial=True)
    assert [entry.sample.id for entry in index(part)] == ["kodim03", "kodim07"]
    assert len(part) == 24
    assert part.pinned() == Kodak().pinned()
    assert part.pinned().kind == "pinned"


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"24 of Kodak's 24 images are missing in .*: kodim01.png, kodim02.png"):
        list(Kodak(path=str(tmp_path)).samples())
    with pytest.raises(ImageError, match=r"no such folder: .*gone"):
        list(Kodak(path=str(tmp_path / "gone")).samples())


def test_rdpbench_data_is_looked_into(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDPBENCH_DATA", str(shared / "data"))
    assert len(list(Kodak(source="http://127.0.0.1:9/").samples())) == 24


@pytest.mark.parametrize("typed", [["plan"], ["run", "download=false"]])
def test_nothing_is_downloaded_where_it_may_not(typed: list[str], tmp_path: Path, capsys) -> None:
    line = [*typed, "codec=jpeg", "data=kodak", "data.options.source=http://127.0.0.1:9/", f"root={tmp_path}/runs"]
    assert main(line) == 2
    said = capsys.readouterr().err
    assert said.startswith("rdpbench: Kodak is not here (15 MB")
    assert "downloading" not in said
    assert not (tmp_path / "runs").exists()
