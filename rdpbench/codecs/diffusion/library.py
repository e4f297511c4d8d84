"""diffusers and transformers, imported where they are used and without their chatter; workers import this ahead."""

from __future__ import annotations

import diffusers
import transformers

# They tell of configurations that are as we want them, on a stream that belongs to the command's own output.
diffusers.utils.logging.set_verbosity_error()
transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]

__all__ = ["diffusers", "transformers"]
