"""What the learned codecs share; ``docs/learned.md`` tells how a codec is made of it.

==================  ====================================================================
`checkpoints`       official state dicts into the real classes, strictly
`tables`            cumulative distribution tables: baked, rebuilt, checked
`entropy`           symbols to strings and back, the same calls in both directions
`portable`          the same decisions on every machine, without integer networks
`frames`            images to padded float planes and back
`systems`           the contract of a network, and images to bitstreams with it
`codec`             fields and methods that all learned codecs have
`hyperprior`        CompressAI's hyperprior networks as systems
`randomised`        seeded random weights with bounded symbols
`library`           CompressAI, imported without its warnings
==================  ====================================================================
"""
