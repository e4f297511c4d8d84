"""What the generative codecs share; ``docs/generative.md`` tells how a codec is made of it.

=============  ============================================================================
`bases`        Stable Diffusion models by name, their files and the sizes of their networks
`folders`      a model in a folder of the user's
`loading`      files into the classes of diffusers and transformers, strictly
`models`       the networks of a model on a device, loaded once for a process
`tiny`         the same classes with seeded random weights
`vocabulary`   CLIP's tokens: text to ids and back
`prompts`      ids to what conditions a U-Net
`sampling`     seeded noise, schedulers, and the one denoising loop
`pixels`       latents to images and back
`fields`       seed and tokens as bytes; the seed can be rewritten
`sketches`     edge maps, and what codes them
`unfinished`   long encodes that survive a kill
=============  ============================================================================
"""
