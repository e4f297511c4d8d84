"""ELIC by the unofficial VincentChandelier/ELiC-ReImplemetation, as its Inference.py has it with --patch 64.

The script keeps eleven strings, the size of z and the image's size in memory; here the image's size and the strings
are the file. z's size follows from the image's.
"""

import struct

import numpy as np
import torch
from Network import TestModel
from torch.nn import functional

GROUPS = 5


class Official:
    def __init__(self, checkpoint, trade_off=None, patch=64, device="cpu"):
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        self.patch, self.device = patch, device
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        tensors = saved.get("state_dict", saved)
        tensors = {name.replace("module.", ""): tensor for name, tensor in tensors.items()}
        self.net = TestModel.from_state_dict(tensors).eval().to(device)
        self.net.update()  # nothing if the file has tables, as those that its updata.py writes

    @torch.no_grad()
    def encode(self, image, side):
        height, width = image.shape[:2]
        planes = torch.from_numpy(image).permute(2, 0, 1)[None].to(self.device).float() / 255
        planes = functional.pad(planes, (0, -width % self.patch, 0, -height % self.patch))
        groups, z = self.net.compress(planes)["strings"]
        strings = [half[0] for group in groups for half in group] + z
        return struct.pack(f">{2 + len(strings)}I", height, width, *map(len, strings)) + b"".join(strings)

    @torch.no_grad()
    def decode(self, data):
        numbers = struct.unpack_from(f">{2 * GROUPS + 3}I", data)
        (height, width), start, strings = numbers[:2], 4 * len(numbers), []
        for length in numbers[2:]:
            strings.append([data[start : start + length]])
            start += length
        groups = [strings[number : number + 2] for number in range(0, 2 * GROUPS, 2)]
        shape = [(side + -side % self.patch) // 64 for side in (height, width)]
        planes = self.net.decompress([groups, strings[-1]], shape)["x_hat"][0, :, :height, :width]
        return (planes.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy().astype(np.uint8)
