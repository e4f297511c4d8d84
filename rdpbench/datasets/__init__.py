"""Datasets: which images, in which order, under which protocol, with which captions and label maps.

Read `contract` first, then `folder`, which also has Kodak and the samples. Official sets are a table,
``official.toml``: `official` finds and checks their files, `fetching` gets their archives, `coco` adds captions and
label maps (`labels`). `index` reads sizes and hashes for planning, `protocols` crops and resizes, `captions` is the
axis of that name, `captioning` the models that write some, `command` is ``rdpbench data``.
"""
