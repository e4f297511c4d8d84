"""CoD-Lite by the code of its authors (microsoft/GenCodec, folder CoD_Lite): one step, and its script's file.

The file is width and height in two little-endian numbers of 16 bits, then indices of a fixed length. Left out of the
script: loading that prints the names of tensors that do not fit and goes on. Beyond it: images are continued to whole
tiles, since its decoder stops at other sizes with an error, and the decoder's noise is seeded.
"""

from pathlib import Path

import numpy as np
import torch
import yaml
from cod.models.autoencoder import fp2uint8
from cod.utils.test_utils import instantiate_class
from finetuned_one_step_codec.inference import read_cod_file, write_cod_file
from torch.nn import functional

FILE = Path("image.cod")


class Official:
    def __init__(self, checkpoint, config, nominal=None, device="cpu"):
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        layout = yaml.safe_load(Path(config).read_text())["model"]["net"]
        self.net = instantiate_class(layout)
        self.tile = max(layout["init_args"]["ds"], layout["init_args"]["patch_size"])
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        tensors = saved.get("module", saved.get("state_dict", saved))
        tensors = {name[len("net.") :]: tensor for name, tensor in tensors.items() if name.startswith("net.")}
        self.net.load_state_dict(tensors)
        self.device = torch.device(device)
        self.net.to(self.device).eval()

    def padded(self, height, width):
        return height + -height % self.tile, width + -width % self.tile

    @torch.no_grad()
    def encode(self, image, side):
        height, width = image.shape[:2]
        tall, wide = self.padded(height, width)
        planes = torch.from_numpy(image).permute(2, 0, 1)[None].to(self.device).float() / 255
        planes = functional.pad(planes, (0, wide - width, 0, tall - height), mode="replicate")
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            write_cod_file(self.net.compress(planes), width, height, FILE)
        return FILE.read_bytes()

    @torch.no_grad()
    def decode(self, data):
        FILE.write_bytes(data)
        width, height, indices = read_cod_file(FILE)
        size = self.padded(height, width)
        torch.manual_seed(0)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            known = self.net.decompress(indices, *size, self.device)
            planes = self.net.inference(torch.zeros(1, 3, *size, device=self.device, dtype=known.dtype), cond=known)
        return fp2uint8(planes)[0, :, :height, :width].permute(1, 2, 0).cpu().numpy().astype(np.uint8)
