"""Where the captions of a set come from: ``captions=human,ofa,blip,blip2,file:PATH``, a sweep axis on any dataset.

========  ===========================================================================================
human     what the dataset brings: MS-COCO's first caption of five, say
ofa       OFA's captions that TACO published, for Kodak (24) and the test set of CLIC 2020 (428)
blip      BLIP large, run on this machine, see `models`
blip2     BLIP-2 with OPT 2.7b, as PerCo (SD) does, run on this machine
file:X    a JSON file of the user's own, see `files`
========  ===========================================================================================

A caption is side information that only the encoder sees; its text is part of a task's key, so captions are known
before a run is planned. How a codec's tokenizer cuts it (TACO's takes 38 tokens) is the codec's matter.

Read `sources` first: it has the axis. What models write is cached (`cache`).
"""
