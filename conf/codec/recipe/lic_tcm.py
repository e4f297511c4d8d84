"""LIC-TCM by the code of its authors (jmliu206/LIC_TCM), as its eval.py has it with --real.

The script keeps strings, sizes and padding in memory; here the image's size and the strings are the file. Its network
has the width N = 128 whatever the checkpoint; here N is that of the checkpoint.
"""

import struct

import numpy as np
import torch
from models import TCM
from torch.nn import functional

from rdpbench.errors import UnsupportedImage


class Official:
    def __init__(self, checkpoint, trade_off=None, device="cpu"):
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        self.device = device
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
        tensors = {name.replace("module.", ""): tensor for name, tensor in saved.items()}
        width = len(tensors["g_a.0.conv1.weight"]) // 2
        self.net = TCM(config=[2] * 6, head_dim=[8, 16, 32, 32, 16, 8], drop_path_rate=0.0, N=width, M=320)
        self.net.load_state_dict(tensors)
        self.net.eval().to(device).update()

    @torch.no_grad()
    def encode(self, image, side):
        height, width = image.shape[:2]
        if min(height, width) <= 128:
            raise UnsupportedImage("its attention has no window for a side of 128 pixels or less")
        left, top = -width % 128 // 2, -height % 128 // 2
        planes = torch.from_numpy(image).permute(2, 0, 1)[None].to(self.device).float() / 255
        planes = functional.pad(planes, (left, -width % 128 - left, top, -height % 128 - top))
        (y,), (z,) = self.net.compress(planes)["strings"]
        return struct.pack(">3I", height, width, len(y)) + y + z

    @torch.no_grad()
    def decode(self, data):
        height, width, end = struct.unpack_from(">3I", data)
        left, top = -width % 128 // 2, -height % 128 // 2
        shape = (height + -height % 128) // 64, (width + -width % 128) // 64
        y, z = data[12 : 12 + end], data[12 + end :]
        planes = self.net.decompress([[y], [z]], shape)["x_hat"][0, :, top : top + height, left : left + width]
        return (planes.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy().astype(np.uint8)
