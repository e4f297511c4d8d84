"""``captions=`` as a sweep axis: who gets a caption, what it does to keys, labels and rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rdpbench.results.store.store import Store

OWN = """
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
import numpy as np
from rdpbench.codecs.contract import Bitstream
from rdpbench.datasets.contract import Sample

@dataclass(frozen=True)
class Told:
    '''Transmits its caption and the size; decodes to a colour that the caption's length gives.'''
    uses_caption: ClassVar[bool] = True

    def encode(self, image, side):
        text = side.caption.encode()
        head = bytes([image.shape[0], image.shape[1]])
        return Bitstream(head + text, {"size": 2, "text": len(text)})

    def decode(self, data):
        return np.full((data[0], data[1], 3), len(data), np.uint8)

class Set:
    name = "captioned"
    protocol = "as-is"
    needs = ()
    folder = Path("FOLDER")
    def samples(self):
        for number, path in enumerate(sorted(self.folder.glob("*.png"))):
            yield Sample(path.stem, path, caption="x" * (number + 1), references=("y",))
    def __len__(self):
        return 3
"""
RUN = ["run", "codec=./own.py:Told", "data=./own.py:Set", "metrics=psnr", "figures=false", "verify=1", "workers=1"]


@pytest.fixture
def own(tmp_path: Path, images: Any) -> Path:
    (tmp_path / "own.py").write_text(OWN.replace("FOLDER", str(images(3))))
    return tmp_path


def rows(folder: Path) -> list[Any]:
    return sorted(Store(folder / "results/runs/captioned").read().rows.values(), key=lambda row: (row.codec, row.image))


def test_the_datasets_own_captions_are_the_default(own: Path, rdpbench: Any) -> None:
    rdpbench(*RUN, code=0)
    found = rows(own)
    assert [(row.codec, row.caption, row.caption_source, row.caption_s) for row in found] == [
        ("Told", "x", "human", None),
        ("Told", "xx", "human", None),
        ("Told", "xxx", "human", None),
    ]
    assert [json.loads(row.parts) for row in found] == [{"size": 2, "text": n} for n in (1, 2, 3)]


def test_sources_sweep_and_each_is_a_curve(own: Path, rdpbench: Any) -> None:
    names = {f"image{n:02d}": "a longer caption" for n in range(3)}
    (own / "names.json").write_text(json.dumps(names))
    done = rdpbench(*RUN, "captions=human,file:names.json", code=0)
    assert "Told[captions=human]" in done.stdout
    assert "Told[captions=file:names.json]" in done.stdout
    found = rows(own)
    assert len(found) == 6
    assert {row.caption_source.partition("@")[0] for row in found} == {"human", "file:names.json"}
    assert "nothing to do" in rdpbench(*RUN, "captions=human,file:names.json", code=0).stdout

    # Another caption is another task; the others stay.
    (own / "names.json").write_text(json.dumps(names | {"image00": "changed"}))
    assert "1 tasks coded" in rdpbench(*RUN, "captions=file:names.json", code=0).stdout


def test_a_codec_without_captions_has_no_such_axis(own: Path, rdpbench: Any) -> None:
    line = ["run", "codec=jpeg", "rate=30", *RUN[2:]]
    rdpbench(*line, code=0)
    assert {(row.caption, row.caption_source) for row in rows(own)} == {("", "")}
    assert "jpeg takes none" in rdpbench(*line, "captions=human", code=2).stderr


def test_bad_sources_are_explained_before_anything_runs(own: Path, rdpbench: Any, images: Any) -> None:
    wrong = rdpbench(*RUN, "captions=humans", code=2)
    assert "humans" in wrong.stderr
    assert "human" in wrong.stderr
    assert "captions=file:" in rdpbench(*RUN, "captions=file:none.json", code=2).stderr
    (own / "names.json").write_text('{"image00": "one"}')
    assert "2 of 3 images" in rdpbench(*RUN, "captions=file:names.json", code=2).stderr
    folder = images(2, name="bare")
    bare = rdpbench("run", "codec=./own.py:Told", f"data=folder:{folder}", *RUN[3:], code=2)
    assert "no caption" in bare.stderr
    assert "captions=blip2" in bare.stderr
    assert not (own / "results").exists()


def test_a_model_that_is_not_here_stops_the_plan(own: Path, rdpbench: Any) -> None:
    for command in ("plan", "run"):
        stopped = rdpbench(command, *RUN[1:], "captions=blip2", code=2)
        assert "Salesforce/blip2-opt-2.7b-coco" in stopped.stderr
    assert not (own / "results").exists()
