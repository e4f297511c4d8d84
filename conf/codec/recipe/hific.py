"""HiFiC by its PyTorch port (Justin-Tan/high-fidelity-generative-compression): its network, its coder and its file.

Left out of the port: LPIPS, which it builds before it codes, and for which it downloads weights; the stretch of
contrast with which it saves pictures; loading that overlooks missing weights.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from default_config import ModelModes
from src.compression.compression_utils import load_compressed_format, save_compressed_format
from src.helpers import utils
from src.loss.perceptual_similarity import perceptual_loss
from src.model import Model

from rdpbench.errors import UnsupportedImage

FILE = Path("image.hfc")
OLD = {"use_latent_mixture_model": False, "sample_noise": False, "noise_dim": 0}
REBUILT = "Hyperprior.prior_entropy_model.", "Hyperprior.hyperprior_entropy_model."
"""Tables, and the hyperlatents' model by its second name; a file that training wrote has neither."""
UNUSED = "Discriminator.", "perceptual_loss."


class Official:
    def __init__(self, checkpoint, target=None, device="cpu"):
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        self.device = device
        utils.get_device = lambda *_: torch.device(device)
        perceptual_loss.PerceptualLoss = lambda **_: None
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        self.settings = utils.Struct(**{**OLD, **saved["args"]})
        kind = self.settings.model_type
        self.net = Model(self.settings, logging.getLogger(), model_type=kind, model_mode=ModelModes.EVALUATION)
        lost, extra = self.net.load_state_dict(saved["model_state_dict"], strict=False)
        wrong = [name for name in lost if not name.startswith(REBUILT)]
        wrong += [name for name in extra if not name.startswith(UNUSED)]
        if wrong:
            raise ValueError(f"{checkpoint} does not fit: {', '.join(wrong[:9])}")
        self.net.to(device).eval()
        self.net.Hyperprior.hyperprior_entropy_model.build_tables()

    @torch.no_grad()
    def encode(self, image, side):
        if min(image.shape[:2]) <= 64:
            raise UnsupportedImage("the port cannot reflect a side of 64 pixels or less")
        planes = torch.from_numpy(image).permute(2, 0, 1)[None].to(self.device).float() / 255
        if self.settings.normalize_input_image:
            planes = planes * 2 - 1
        save_compressed_format(self.net.compress(planes, silent=True), FILE)
        return FILE.read_bytes()

    @torch.no_grad()
    def decode(self, data):
        FILE.write_bytes(data)
        planes = self.net.decompress(load_compressed_format(FILE))[0]
        return (planes * 255).round().byte().permute(1, 2, 0).cpu().numpy().astype(np.uint8)
