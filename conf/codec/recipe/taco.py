"""TACO by the code of its authors (effl-lab/TACO): its network, its padding and, byte for byte, its file.

The captions enter the encoder alone. The script hands them to its decoder, too, which does not read them.
"""

import io

import numpy as np
import torch
from config.config import model_config
from models import TACO
from torch.nn import functional
from transformers import AutoTokenizer, CLIPTextModel
from utils.utils import read_body, read_uints, write_body, write_uints


class Official:
    uses_caption = True

    def __init__(self, checkpoint, trade_off=None, clip="openai/clip-vit-base-patch32", device="cpu"):
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = False
        if not torch.cuda.is_available():
            torch.cuda.synchronize = lambda *_: None  # its decoder waits for a GPU, whether there is one or not
        self.device = device
        self.tokenizer = AutoTokenizer.from_pretrained(clip)
        self.text = CLIPTextModel.from_pretrained(clip).eval().to(device)
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
        self.net = TACO(model_config(), text_embedding_dim=self.text.config.hidden_size)
        self.net.load_state_dict({name.replace("module.", ""): tensor for name, tensor in saved.items()})
        self.net.eval().to(device).update()

    @torch.no_grad()
    def encode(self, image, side):
        height, width = image.shape[:2]
        planes = torch.from_numpy(image).permute(2, 0, 1)[None].to(self.device).float() / 255
        planes = functional.pad(planes, (0, -width % 64, 0, -height % 64))
        words = {"padding": "max_length", "max_length": 38, "truncation": True, "return_tensors": "pt"}
        tokens = self.tokenizer([side.caption or ""], **words).to(self.device)
        out = self.net.compress(planes, self.text(**tokens).last_hidden_state)
        file = io.BytesIO()
        write_uints(file, (height, width))
        write_body(file, out["shape"], out["strings"])
        return file.getvalue()

    @torch.no_grad()
    def decode(self, data):
        file = io.BytesIO(data)
        height, width = read_uints(file, 2)
        strings, shape = read_body(file)
        planes = self.net.decompress(strings, shape)["x_hat"][0, :, :height, :width]
        return (planes.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy().astype(np.uint8)
