"""MS-ILLM by the code of its authors (facebookresearch/NeuralCompression), as its eval_folder_example.py has it.

The script pickles what `compress` returns to count its bytes; here the image's size and the two strings are the file.
The padded size follows from the image's.
"""

import struct

import numpy as np
import torch
from neuralcompression import HyperpriorCompressedOutput
from neuralcompression.models import HiFiCAutoencoder

from rdpbench.errors import UnsupportedImage


class Official:
    def __init__(self, checkpoint, target=None, device="cpu"):
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        self.device = device
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        self.net = HiFiCAutoencoder()
        self.net.load_state_dict(saved.get("state_dict", saved))
        self.net.eval().to(device).update()
        self.net.update_tensor_devices("compress")  # what both sides compute stays on the processor

    @torch.no_grad()
    def encode(self, image, side):
        if any(-length % 64 >= length for length in image.shape[:2]):
            raise UnsupportedImage("a side of 32 pixels or less cannot be reflected to a multiple of 64")
        planes = torch.from_numpy(image).permute(2, 0, 1)[None].to(self.device).float() / 255
        out = self.net.compress(planes, force_cpu=False)
        (y,), (z,) = out.latent_strings, out.hyper_latent_strings
        return struct.pack(">3I", *image.shape[:2], len(y)) + y + z

    @torch.no_grad()
    def decode(self, data):
        height, width, end = struct.unpack_from(">3I", data)
        y, z = data[12 : 12 + end], data[12 + end :]
        size, padded = (height, width), (height + -height % 64, width + -width % 64)
        out = HyperpriorCompressedOutput(
            latent_strings=[y], hyper_latent_strings=[z], image_size=size, padded_size=padded
        )
        planes = self.net.decompress(out, force_cpu=False)[0]
        return (planes * 255 + 0.5).byte().permute(1, 2, 0).cpu().numpy().astype(np.uint8)
