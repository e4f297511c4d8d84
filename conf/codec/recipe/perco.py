"""PerCo (SD) by its re-implementation (Nikolai10/PerCo): its networks, its zlib text and its torchac indices.

The script pickles these parts; here they follow the image's size and the length of the text. As there, the picture is
squeezed to 512 x 512; here it is brought back to its own size, too. Captions are those of the run, where the script
asks BLIP-2, and the encoder's draw from its latents has a seed. The rate, a constant in the script, is that of the
weights.
"""

import struct

import numpy as np
import torch
from compression_utils import compress_hyper_latent, compress_text, decompress_hyper_latent, decompress_text
from PIL import Image
from pipeline_sd_perco import StableDiffusionPipelinePerco

from config import ConfigPerco

SIDE = 512


class Official:
    uses_caption = True
    seeded = True

    def __init__(self, checkpoint, nominal=None, steps=20, guidance=3.0, device="cpu"):
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        self.steps, self.guidance, self.device = steps, guidance, device
        self.pipe = StableDiffusionPipelinePerco.from_pretrained(
            checkpoint, safety_checker=None, requires_safety_checker=False
        ).to(device)
        self.quantizer = self.pipe.hyper_enc.quantizer.eval()
        layout = self.pipe.hyper_enc.config.cfg_ss, self.pipe.hyper_enc.config.cfg_cs
        ConfigPerco.target_rate = next(rate for rate, known in ConfigPerco.rate_cfg.items() if known == layout)

    @torch.no_grad()
    def encode(self, image, side):
        squeezed = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.BICUBIC))
        planes = torch.tensor(squeezed).permute(2, 0, 1)[None].to(self.device).float() / 255 * 2 - 1
        torch.manual_seed(side.seed or 0)
        latents = self.pipe.vae.encode(planes).latent_dist.sample() * self.pipe.vae.config.scaling_factor
        text = compress_text(side.caption or "")
        indices = compress_hyper_latent(self.pipe.hyper_enc(latents).indices)
        return struct.pack(">3I", *image.shape[:2], len(text)) + text + indices

    @torch.no_grad()
    def decode(self, data):
        height, width, end = struct.unpack_from(">3I", data)
        caption, indices = decompress_text(data[12 : 12 + end]), data[12 + end :]
        indices = decompress_hyper_latent(indices, (SIDE, SIDE)).to(self.device).long()
        known = self.quantizer.get_output_from_indices(indices).permute(0, 3, 1, 2)
        generator = torch.Generator(self.device).manual_seed(ConfigPerco.random_seed)
        settings = {"num_inference_steps": self.steps, "guidance_scale": self.guidance, "generator": generator}
        picture = self.pipe(caption, known, height=SIDE, width=SIDE, **settings).images[0]
        return np.asarray(picture.resize((width, height), Image.BICUBIC))
