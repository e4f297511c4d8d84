"""CompressAI without its warnings; the fork server imports this module for all workers."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # Its layers for point clouds are scripted at import, in a way that torch is about to drop.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    import compressai
    import compressai.ans

__all__ = ["compressai"]
