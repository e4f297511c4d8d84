"""PerCo, perceptual compression: vector-quantised latents and a caption, from which Stable Diffusion paints the image.

Careil et al., "Towards image compression with perfect realism at ultra-low bitrates", ICLR 2024,
https://arxiv.org/abs/2310.10325. The authors published neither code nor weights; this is the open implementation,
Nikolai10/PerCo (Apache-2.0; nothing of it is copied here), which is Stable Diffusion 2.1, trained further as a whole.

The VAE's latents go through a hyper-encoder, and each of its vectors becomes the nearest of V entries of a codebook.
The decoder's U-Net sees these entries, enlarged, as further channels of its input, and the caption as its prompt. The
caption is that of the ``captions=`` axis; the published numbers are with BLIP-2's (``captions=blip2``).

Weights: a folder for each of seven rates, of which three are public (`codec`). The defaults are the official ones.

In the bitstream: height, width, the noise seed, the caption, the indices (`rdpbench.codecs.diffusion.fields`).

Departures from the official code:

- Height, width, seed and lengths are counted: 6 to 9 bytes. The official evaluation counts the caption and the indices
  only, and decodes nothing; its file is a pickle, 81 bytes larger. Both are in ``legacy``, with the rate in the name.
- Indices are one number in base V. The official coder is an arithmetic one with a uniform model: a byte longer.
- The noise is seeded by the container, the VAE's draw by the run. Officially a dataset is coded unseeded.
- Any size is taken: continued to multiples of 64, and cut. The official code squashes its input to 512 x 512, which
  here is the protocol of a dataset: ``data=kodak data.options.protocol=perco-512``.

Read `codec` first (rates, cards, loading, the codec), then `network` (the hyper-encoder); `image` is PerCo-Image, from
the paper alone.
"""
