"""PerCo-Image: the product quantiser, its 160 bits, and that the embedding conditions the decoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdpbench.assets.load import on_meta
from rdpbench.codecs.container import pack, unpack
from rdpbench.codecs.contract import Side, coder_of
from rdpbench.codecs.diffusion import bases, fields, models, perco
from rdpbench.codecs.diffusion.perco import image as perco_product
from rdpbench.codecs.diffusion.perco import network
from rdpbench.codecs.diffusion.perco.image import PerCoImage
from rdpbench.errors import BitstreamError, CodecError, ConfigError
from rdpbench.image import Image, pixel_sha256
from rdpbench.networks.clip import unit

pytestmark = pytest.mark.usefixtures("alone")


def codec(**options: Any) -> PerCoImage:
    return PerCoImage(**{"weights": "random", "steps": 2, **options})


@pytest.fixture
def small(photograph: Image) -> Image:
    return np.ascontiguousarray(photograph[:70, :100])


def test_an_embedding_is_160_bits(photograph: Image) -> None:
    """The paper: 0.00061 bpp at 512 x 512."""
    image = np.ascontiguousarray(np.resize(photograph, (512, 512, 3)))
    made = codec(nominal=0.0098).encode(image, Side())
    assert made.parts == {"header": 4 + 1 + 1 + 2, "seed": 1, "embedding": 20, "indices": 320}
    legacy = json.loads(made.info["legacy"])
    assert legacy["embedding"] == 160
    assert legacy["perco"] == 160 + 2560
    assert round(legacy["embedding"] / 512**2, 5) == 0.00061


def test_what_is_sent_is_the_nearest_entry_of_each_part(small: Image) -> None:
    one = codec()
    section = unpack(one.encode(small, Side()).data, 3)[2][1]
    found = fields.unpack_indices(section, 16, 1024)
    vector = unit(models.clip_network(one.clip, "random").image([small]))[0]
    books = one.quantizer().codebooks
    assert books.shape == (16, 1024, 2)  # 24 numbers filled up to 32
    parts = np.concatenate([vector, np.zeros(8)]).reshape(16, 2)
    distances = ((books - parts[:, None]) ** 2).sum(-1)
    assert found.tolist() == distances.argmin(1).tolist()
    assert np.array_equal(one.quantizer().vector(found), books[np.arange(16), found].ravel()[:24])


def test_the_embedding_conditions_the_decoder(small: Image, photograph: Image) -> None:
    data = codec().encode(small, Side()).data
    height, width, (seed, embedding, indices) = unpack(data, 3)
    other = unpack(codec().encode(np.ascontiguousarray(photograph[90:160]), Side()).data, 3)[2][1]
    assert other != embedding

    def painted(section: bytes, **options: Any) -> str:
        sections = {"seed": seed, "embedding": section, "indices": indices}
        return pixel_sha256(codec(**options).decode(pack(height, width, sections).data))

    pictures = [painted(embedding), painted(other), painted(embedding, guidance="none")]
    pictures += [painted(embedding, guidance="text+spatial"), painted(embedding, guidance_scale=6.0)]
    assert len(set(pictures)) == 5
    # What guidance keeps away from is the layer's own constant, whatever is sent.
    ready = codec().models()
    assert float(codec().condition(ready, None).hidden.abs().max()) == 0
    assert codec().condition(ready, embedding).hidden.shape == (1, 1, 24)
    with pytest.raises(BitstreamError, match="16 indices among 1024 are 20 bytes, found 19"):
        codec().decode(pack(height, width, {"seed": seed, "embedding": embedding[1:], "indices": indices}).data)


def test_the_u_net_takes_an_embedding_through_a_layer_of_its_own() -> None:
    sizes = models.narrow(bases.SD21)
    made = {width: on_meta(lambda at=width: perco.unet_of(sizes, network.TINY, embedding=at)) for width in (0, 24)}
    shapes = {width: {name: tuple(one.shape) for name, one in net.state_dict().items()} for width, net in made.items()}
    layer = {"encoder_hid_proj.weight": (32, 24), "encoder_hid_proj.bias": (32,)}
    assert shapes[24] == {**shapes[0], **layer}
    assert PerCoImage(weights="random-full").embedding() == 1024


def test_codebooks_are_learned() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((8, 10)).astype(np.float32)
    vectors = centres[rng.integers(8, size=400)] + 0.05 * rng.standard_normal((400, 10)).astype(np.float32)
    vectors = vectors.astype(np.float32)

    def error(quantizer: perco_product.ProductQuantizer) -> float:
        return float(np.mean([(one - quantizer.vector(quantizer.indices(one))) ** 2 for one in vectors]))

    made = {rounds: perco_product.learned(vectors, 3, 8, seed=1, rounds=rounds) for rounds in (1, 25)}
    assert made[25].codebooks.shape == (3, 8, 4)
    assert error(made[25]) <= error(made[1])
    # Few centres are found again, to the deviation around them.
    assert error(made[25]) < 4 * 0.05**2
    again = perco_product.learned(vectors, 3, 8, seed=1)
    assert np.array_equal(again.codebooks, made[25].codebooks)
    with pytest.raises(CodecError, match="400 embeddings are too few to learn 401 entries"):
        perco_product.learned(vectors, 3, 401)


def test_codebooks_of_the_users_own(tmp_path: Path) -> None:
    file = tmp_path / "codebooks.safetensors"
    perco_product.drawn(16, 1024, 24, 5).save(file)
    options = {"codebooks": str(file), "pipeline": str(tmp_path / "pipeline")}
    one = PerCoImage(**options)
    assert one.quantizer().width == one.embedding() == 24
    told = [str(need.missing()) for need in one.weight_needs()]
    assert not [text for text in told if "PerCo-Image" in text]
    assert any("hyper_enc holds no tensors" in text for text in told)
    assert coder_of(one)["codebooks"].startswith("sha256:")
    with pytest.raises(CodecError, match=r"holds 16 x 1024 entries; parts x entries is 16 x 512"):
        PerCoImage(**options, entries=512).quantizer()
    file.write_bytes(b"nothing")
    with pytest.raises(CodecError, match="holds no codebooks"):
        one.quantizer()
    told = [str(need.missing()) for need in PerCoImage().weight_needs()]
    assert any("no weights of PerCo-Image are public" in text for text in told)
    assert any("no codebooks of PerCo-Image are public" in text for text in told)


def test_options_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ConfigError, match="parts=0 must be"):
        PerCoImage(parts=0)
    with pytest.raises(ConfigError, match="entries=1 must be a whole number from 2"):
        PerCoImage(entries=1)
