"""rdpbench: a reproducible benchmark of perceptual and generative image compression.

The public surface: to run and score from Python, to read results, and for codecs, datasets and metrics of one's own.
The command line is ``rdpbench --help``.
"""

from rdpbench.api import Scorer, run, score
from rdpbench.codecs.contract import Bitstream, Codec, Rate, Side
from rdpbench.datasets.contract import Dataset, Sample
from rdpbench.errors import RdpbenchError
from rdpbench.image import Image, to_uint8
from rdpbench.metrics.contract import Metric
from rdpbench.needs import Binary, Package
from rdpbench.provenance import VERSION as __version__
from rdpbench.results.read import read_results

__all__ = [
    "Binary",
    "Bitstream",
    "Codec",
    "Dataset",
    "Image",
    "Metric",
    "Package",
    "Rate",
    "RdpbenchError",
    "Sample",
    "Scorer",
    "Side",
    "__version__",
    "read_results",
    "run",
    "score",
    "to_uint8",
]
