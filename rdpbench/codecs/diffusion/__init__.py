"""The generative codecs, and what they share; ``docs/generative.md`` tells how a codec is made of it.

`codec` has the base of all; `bases` and `models` the networks of Stable Diffusion; `sampling` the one loop; `fields`
what is sent, as bytes. A codec is a folder, or `sd_vae`.
"""
