"""Networks that metrics and codecs share.

CLIP, Inception, segmentation; and how their arithmetic is made exact (``precision``).
"""
