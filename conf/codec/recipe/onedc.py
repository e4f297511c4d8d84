"""OneDC by the code of its authors (onedc-codec/onedc, folder src): its networks and its script's file.

Its encoder draws from the VAE's latents, with a seed for all images in turn, so that a file depends on the images
before it; here each image has a seed. Stable Diffusion's files come from the hub's cache, as there. The range coder has
to be built first, as the readme says.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from models.sd15_onedc_codec_stage1.model_sd15_with_codec_stage1 import SD15_1step_codec_stage1
from omegaconf import OmegaConf
from utils import load_safetensor

ROOT = next(folder for folder in map(Path, sys.path) if (folder / "config_inference.yaml").is_file())
OTHERS = "vae_ckpt", "control_ckpt", "guidance_ckpt"


class Official:
    seeded = True

    def __init__(self, checkpoint, device="cpu"):
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        settings = OmegaConf.merge(OmegaConf.load(ROOT / "config_inference.yaml"), dict.fromkeys(OTHERS))
        accelerator = Accelerator(mixed_precision="no", cpu=device == "cpu")
        self.device = accelerator.device
        self.net = SD15_1step_codec_stage1(settings, accelerator)
        self.net.codec_model.update(force=True)
        parts = {"model.safetensors": self.net.feedforward_model, "model_1.safetensors": self.net.codec_model}
        for name, part in parts.items():
            part.load_state_dict(load_safetensor(str(Path(checkpoint, name)), map_location="cpu"))
        self.net.eval()

    @torch.no_grad()
    def encode(self, image, side):
        planes = torch.from_numpy(image).permute(2, 0, 1)[None].to(self.device).float() / 255 * 2 - 1
        torch.manual_seed(side.seed or 0)
        return self.net.encode(planes)[0]

    @torch.no_grad()
    def decode(self, data):
        planes = self.net.decode(stream=data)[0].clamp(-1, 1) * 0.5 + 0.5
        return (planes * 255 + 0.5).byte().permute(1, 2, 0).cpu().numpy().astype(np.uint8)
