"""Datasets: which images, in which order, under which protocol, with which captions and label maps.

Read `contract` first, then `folder` for a short one. Official sets are a table, ``official.toml``: `official` finds and
checks their files, `fetching` gets their archives, `coco` adds captions and label maps (`labels`); `pinned` has Kodak
and the samples. `index` reads sizes and hashes for planning, `protocols` crops and resizes, `command` is
``rdpbench data``.
"""
