"""Networks that are nobody's metric.

CLIP, Inception, segmentation; and how their arithmetic is made exact (``precision``).
"""
