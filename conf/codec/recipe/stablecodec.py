"""StableCodec by the code of its authors (LuizScarlet/StableCodec): its networks and its file, after the image's size.

The script keeps the size in memory, and with --color_fix the colours of the original, which no file holds; that is off
here. Pictures are cut to 8 bits, not rounded, as there. All of it needs a GPU: 'cuda' is written into the networks.
"""

import io
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from rdpbench.errors import UnsupportedImage

ROOT = next(folder for folder in map(Path, sys.path) if (folder / "ELIC").is_dir())
sys.path.insert(0, str(ROOT / "src"))

from my_utils.compress_utils import read_body, read_uints, write_body, write_uints
from my_utils.testing_utils import parse_args_testing
from StableCodec import StableCodec

TILE = 256


class Official:
    def __init__(self, checkpoint, sd_turbo, elic, ft=None, device="cuda"):
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        files = {"sd_path": sd_turbo, "elic_path": elic, "codec_path": checkpoint}
        unused = dict.fromkeys(("img_path", "rec_path", "bin_path"), "-")
        settings = parse_args_testing([f"--{name}={value}" for name, value in {**files, **unused}.items()])
        self.device = device
        self.net = StableCodec(sd_path=sd_turbo, args=settings).to(device).eval()
        self.net.codec.update(force=True)

    @torch.no_grad()
    def encode(self, image, side):
        height, width = image.shape[:2]
        if any(-length % TILE >= length for length in (height, width)):
            raise UnsupportedImage("a side of 128 pixels or less cannot be reflected to a multiple of 256")
        planes = torch.from_numpy(image).permute(2, 0, 1)[None].to(self.device).float() / 255 * 2 - 1
        planes = functional.pad(planes, (0, -width % TILE, 0, -height % TILE), mode="reflect")
        out = self.net.compress(planes)
        file = io.BytesIO()
        write_uints(file, (height, width))
        write_body(file, out["shape"], out["strings"])
        return file.getvalue()

    @torch.no_grad()
    def decode(self, data):
        file = io.BytesIO(data)
        height, width = read_uints(file, 2)
        strings, shape = read_body(file)
        planes = self.net.decompress(strings, shape, [1])[0, :, :height, :width] * 0.5 + 0.5
        return (planes.float().clamp(0, 1) * 255).byte().permute(1, 2, 0).cpu().numpy().astype(np.uint8)
