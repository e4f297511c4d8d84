"""HiFiC as its authors published it: TensorFlow models through ``tfci``, a program of the user's.

Paper: Mentzer et al., "High-Fidelity Generative Image Compression", NeurIPS 2020. Models: tensorflow/compression,
``hific-lo``, ``hific-mi`` and ``hific-hi`` (Apache-2.0), trained for 0.14, 0.3 and 0.45 bit per pixel on OpenImages; on
Kodak they take 0.183, 0.351 and 0.538.

``tfci`` is ``models/tfci.py`` of that repository. It needs tensorflow 2.14 and tensorflow-compression 2.14 on Python
3.11, in an environment of its own; a two-line script makes a program of it::

    #!/bin/sh
    exec /where/tfci/lives/bin/python /where/tfci/lives/tfci.py "$@"

    export RDPBENCH_TFCI=/where/that/script/is

In the bitstream: the ``.tfci`` file as it is, with the model's name inside.

The model (a metagraph) is weights like any other here: its card is in the plan, its hash is pinned, and ``tfci`` is
told to take this file; else it would download one, and decode a damaged name with whatever it finds at that address.
So a bitstream that names another model than this codec's is refused before the program sees it.

Padding, coding and rounding are the model's. Its entropy decoder depends on floating point sums: decode where you
encoded. What the program allocates for a damaged size inside the file is not bounded here, its time is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from rdpbench.assets.hashes import content_sha256
from rdpbench.assets.program import Argument, In, Out, Ran, require, run_program
from rdpbench.assets.weights import Card, Weights
from rdpbench.codecs.classical.pillow import pillow_decode, pillow_encode
from rdpbench.codecs.container import read_varint
from rdpbench.codecs.contract import FLOAT_LIBRARIES, Bitstream, ProgramCodec, Side
from rdpbench.codecs.learned.codec import Kind
from rdpbench.codecs.learned.hific import TARGETS
from rdpbench.codecs.learned.systems import size_of
from rdpbench.codecs.legacy import nominal
from rdpbench.errors import BitstreamError
from rdpbench.image import Image
from rdpbench.needs import Binary, Need

PAGE = "https://github.com/tensorflow/compression/blob/master/models/tfci.py"
PROGRAM = Binary("tfci", "RDPBENCH_TFCI", PAGE)
MODELS = {0.14: "hific-lo", 0.3: "hific-mi", 0.45: "hific-hi"}


@dataclass(frozen=True)
class HiFiCTensorFlow(ProgramCodec):
    """HiFiC's official models."""

    name = "hific-tfci"
    rate = TARGETS
    heavy = True
    needs = (PROGRAM,)
    depends_on_cpu = FLOAT_LIBRARIES

    target: float = 0.14
    """Bits per pixel asked for in training: 0.14, 0.3 or 0.45."""
    timeout_s: float = 1800

    @property
    def model(self) -> str:
        """Name of the model in ``tfci``."""
        return MODELS[self.target]

    def published(self) -> Weights:
        """The model's file."""
        file = f"{self.model}.metagraph"
        return Weights(
            Card(
                id=f"tfci/{self.model}",
                source=f"https://storage.googleapis.com/tensorflow_compression/metagraphs/{file}",
                revision="metagraphs",
                file=file,
                licence="Apache-2.0, as tensorflow/compression; the models state no licence of their own",
                note=f"HiFiC, official TensorFlow model {self.model}",
            )
        )

    def weight_needs(self) -> tuple[Need, ...]:
        return (self.published(),)

    def weights_kind(self) -> Kind:
        return "unpinned"

    def coder(self) -> dict[str, str]:
        # A script has no version, and TensorFlow's cannot be asked through it.
        program = f"sha256:{content_sha256(require(PROGRAM))}"
        return {"tfci": program, "weights": self.published().identity, "entropy coding": "device-bound"}

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002 - the contract's signature
        png = pillow_encode("hific-tfci", "PNG", image, compress_level=1)
        ran = self._tfci(["compress", self.model, In("in.png", png), Out("out.tfci")])
        data = ran.outputs["out.tfci"]
        check_model(data, self.model)
        bits = {"nominal": nominal(self.target, size_of(image))}
        return Bitstream.whole(data, command=ran.command, legacy=json.dumps(bits))

    def decode(self, data: bytes) -> Image:
        check_model(data, self.model)
        ran = self._tfci(["decompress", In("in.tfci", data), Out("out.png")])
        return pillow_decode("hific-tfci", "PNG", ran.outputs["out.png"])

    def _tfci(self, arguments: list[Argument]) -> Ran:
        folder = str(self.published().path.parent)
        ran = run_program(require(PROGRAM), ["--metagraph_cache", folder, *arguments], self.timeout_s)
        return Ran(ran.command.replace(folder, "metagraphs"), ran.outputs, ran.stdout, ran.stderr)


def check_model(data: bytes, expected: str) -> None:
    """Raise `BitstreamError` unless a ``.tfci`` file names the expected model, and no other.

    The file is a ``tf.train.Example``: features by name, the model's is ``MD``.

    >>> check_model(bytes.fromhex("0a130a110a024d44120b0a090a0768696669632d78"), "hific-x")
    """
    features = [feature for group in _fields(data, 1) for feature in _fields(group, 1)]
    models = [value for feature in features if list(_fields(feature, 1)) == [b"MD"] for value in _fields(feature, 2)]
    names = [name for lists in models for values in _fields(lists, 1) for name in _fields(values, 1)]
    if names != [expected.encode()]:
        raise BitstreamError(f"not a tfci bitstream of {expected!r}: it names {names or 'no model'}")


def _fields(message: bytes, number: int) -> Iterator[bytes]:
    """The values of a length-delimited field of a protobuf message; all fields are walked, so damage is found."""
    offset = 0
    while offset < len(message):
        tag, offset = read_varint(message, offset)
        kind = tag & 7
        if kind == 0:
            _, offset = read_varint(message, offset)
            continue
        if kind not in (1, 2, 5):
            raise BitstreamError(f"not a tfci bitstream: field of wire type {kind}")
        length, offset = read_varint(message, offset) if kind == 2 else ({1: 8, 5: 4}[kind], offset)
        if offset + length > len(message):
            raise BitstreamError(f"not a tfci bitstream: a field of {length} bytes ends after the file")
        if kind == 2 and tag >> 3 == number:
            yield message[offset : offset + length]
        offset += length
