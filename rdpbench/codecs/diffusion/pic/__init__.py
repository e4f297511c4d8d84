"""PIC, the prompt inversion compressor: an image becomes 16 words, which Stable Diffusion paints. PICS: and a sketch.

Lei et al., "Text + Sketch: Image Compression at Ultra Low Rates", ICML 2023 workshop, https://arxiv.org/abs/2307.01944;
code: leieric/Text-Sketch (no licence; nothing of it is copied here).

**PIC.** The encoder searches the prompt whose CLIP embedding is nearest to the image's (`pez`), paints N candidates
from N seeds, and keeps the one whose CLIP embedding is nearest to the image's. In the bitstream: height, width, the
noise seed (which says which candidate), the tokens of the prompt (`rdpbench.codecs.diffusion.fields`).

The defaults are the official ones. Departures from the official code:

- Token ids are sent. The official code sends the text, of which four fifths come back as other ids, so that what is
  painted is not what was searched. ``tokens=zlib-text`` sends the text, and chooses the candidate from what comes back.
- The index of the candidate, height and width are counted. The published rate stands in the ``legacy`` rates of a row.
- All is seeded, on the CPU. The official search is not, and its noise is that of the GPU that ran it.
- The decoder paints one image, not N of which it drops N - 1.
- Single precision by default, without xformers, whose sums differ between GPUs.
- Any size is taken: painted at the next multiples of 64, and cut. The official code resizes its input, which here is
  the protocol of a dataset: ``data=kodak data.options.protocol=text-sketch-512``.

**PICS.** An edge map goes with the prompt, and a ControlNet paints along it. Weights, beside PIC's: HED, the ControlNet
for HED maps of SD 2.1, and the authors' sketch codec for lambda 0.5 or 1.0, which is the rate axis (`sketches`). In the
bitstream, after the prompt: the strings of the sketch, ``z`` and ``y``, or ``sketch``. The ControlNet sees the
*decoded* sketch, sharpened by torchvision with factor 2 and made 8 bits by dropping fractions. UniPC samples.

``pics-sketch`` answers the paper's open question, which sketch and which codec for it: Canny edges or HED maps,
thresholded or not, coded as fax (CCITT Group 4) or by any codec of rdpbench, with a ControlNet trained for the kind.
Its rate axis is that codec's native rate. Further departures:

- Every image is coded with its own prompt. The official script reuses, by number, captions of an earlier dataset.
- An image whose sides are no multiples of 64 is continued at the right and below, and its sketch coded at that size.
- The sketch codec codes its latents along wavefronts: the same bits in another order, in a tenth of the steps.

Read `codec` first, then `pez` (the search) and `sketches` (edges, and what codes them).
"""
