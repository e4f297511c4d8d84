"""The generative codecs, and what they share; ``docs/generative.md`` tells how a codec is made of it.

=====================  ==============================================================================================
`codec`                the base of all: weights, how an image comes out of a bitstream; searches that survive a kill
`bases`                Stable Diffusion models by name or in a folder, sizes of their networks, CLIP's tokens
`models`               networks on a device, CLIP too, strictly from their files or with seeded random weights
`sampling`             what a U-Net sees of a prompt, noise, schedulers, the one loop, latents to images and back
`fields`               seeds, tokens, captions, indices as bytes; the seed can be rewritten
`sd_vae`               the autoencoder alone
`pic`                  prompts that are searched, and sketches
`textual_inversion`    vectors that are searched, and a guide
`perco`                a further trained model, vector-quantised latents and a caption
=====================  ==============================================================================================
"""
