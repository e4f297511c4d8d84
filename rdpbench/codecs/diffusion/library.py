"""diffusers and transformers, without their messages; the fork server imports this module for all workers."""

from __future__ import annotations

import diffusers
import transformers

# They tell of configurations that are as we want them, on a stream that belongs to the command's own output.
diffusers.utils.logging.set_verbosity_error()
transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]

__all__ = ["diffusers", "transformers"]
