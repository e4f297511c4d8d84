"""Textual inversion: an image becomes K vectors for Stable Diffusion's attention and a small image as a guide.

Pan, Zhou, Tian, "Extreme Generative Image Compression by Learning Text Embedding from Diffusion Models", 2022,
https://arxiv.org/abs/2211.07793. There is no official code, and of the paper only its summary was at hand.

``fidelity: paper``. What the summary says is done: vectors learned by the diffusion model's own objective, past the
text tower; compressed; a small compressed image that constrains the predicted clean latents of each step;
classifier-free guidance; about 0.07 bpp on Kodak. What it does not say is decided here, and may differ from the
authors' system: all numbers below, the base model, sampler and steps, where the vectors stand, how they and the guide
are coded. Departures: the abstract compresses the vectors with a learned model, of which nothing more is said; here
they are quantised during the search and coded with adaptive counts. SDXL's pooled prompt is of no words.

The encoder searches the vectors, quantises and codes them (`vectors`). The guide is the image in means of
``guide_factor`` x ``guide_factor`` pixels, coded by any codec of rdpbench. Both have budgets that every image keeps, so
that the rate is nearly constant. The decoder draws noise from the seed and denoises it under the vectors.

``s_f`` (`guidance`) is the classifier-free guidance, away from the empty prompt. The **compression guidance** ``s_c``
(`compression_guidance`) changes each predicted clean latent z on the way::

    z  <-  z - s_c * gradient of L at z,      L(z) = (f / 8)^2 * 1/2 * sum (A D(z) - x_g)^2

with D the VAE's decoder to [-1, 1], A the means of f x f pixels, ``x_g`` the decoded guide. The sum counts each error
as often as there are latents to mend it, so that a strength means the same for any size of image and guide: were the
decoder a matrix for each latent, from 4 channels to 3, with largest singular value a, a step would leave
``1 - s_c a^2`` of the error along it, and from ``s_c = 2 / a^2`` on the error would grow. For the VAE of Stable
Diffusion 1 the matrix that circulates for previews (Hugging Face's forum, thread 23204) has ``a^2 = 0.66``, thus 3.0.
It was not measured here.

In the bitstream: height, width, the noise seed, the vectors (their number, the step, the code), the guide (the place of
its rate among the codec's, where it was fitted, and the codec's bytes).

Read `codec` first (the system and its guide), then `vectors` (how they are searched and coded).
"""
