"""COCO's three numberings of its classes, as tables for `rdpbench.metrics.confusion.remap`.

* COCO-Stuff label maps (``stuffthingmaps``): the category id less one, 0 to 181, and 255; 171 of them are used, as 11
  thing ids were never annotated. `STUFF_171` numbers those 0 to 170 without gaps, as segmentation toolboxes do.
* COCO panoptic: category ids up to 200; 80 things and 53 kinds of stuff. `PANOPTIC_133` numbers them 0 to 132, in the
  order of the ids: what models of 133 classes predict.
* `STUFF_TO_PANOPTIC` brings a COCO-Stuff map to these 133 classes. 43 of the 91 kinds of stuff were merged into 17, and
  12 were given up and become 255. There is no way back.

Source: the category lists of COCO-Stuff 164k and of the COCO panoptic challenge (cocodataset.org, panoptic evaluation).

>>> [int(STUFF_171[label]) for label in (0, 11, 12, 181, 255)]
[0, 255, 11, 170, 255]
>>> [int(PANOPTIC_133[label]) for label in (1, 90, 91, 92, 184, 200)]
[0, 79, 255, 80, 116, 132]
>>> [int(STUFF_TO_PANOPTIC[label - 1]) for label in (1, 92, 94, 169, 104)]  # person, banner, branch, tree, cloth
[0, 80, 116, 116, 255]
"""

from __future__ import annotations

from rdpbench.metrics.confusion import table

_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
"""Thing ids that no image has: hat, shoe, eye glasses and so on."""
_THINGS = tuple(category for category in range(1, 91) if category not in _UNUSED)
_MERGED = {
    184: (94, 97, 129, 169),  # tree: branch, bush, leaves, tree
    185: (99, 113, 146),  # fence: cage, fence, railing
    186: (102, 103),  # ceiling: other, tile
    187: (106, 120, 157),  # sky: clouds, fog, other
    188: (98, 108),  # cabinet: cabinet, cupboard
    189: (110, 165),  # table: desk, table
    190: (114, 115, 117),  # floor: marble, other, tile
    191: (116, 140),  # pavement: stone floor, pavement
    192: (127, 135),  # mountain: hill, mountain
    193: (124, 134, 163),  # grass: grass, moss, straw
    194: (111, 136),  # dirt: dirt, mud
    195: (137, 139),  # paper: napkin, paper
    196: (121, 153, 170),  # food: other, salad, vegetable
    197: (96, 158),  # building: other, skyscraper
    198: (150, 162),  # rock: rock, stone
    199: (172, 173, 174),  # wall: concrete, other, panel
    200: (101, 131, 152),  # rug: carpet, mat, rug
}
_GIVEN_UP = (104, 105, 123, 126, 132, 142, 143, 160, 164, 167, 179, 182)
"""Cloth, clothes, other furniture, other ground, metal, other plants, plastic, and so on."""
_KEPT = tuple(
    category
    for category in range(92, 183)
    if category not in _GIVEN_UP and all(category not in old for old in _MERGED.values())
)

_PANOPTIC = {category: index for index, category in enumerate((*_THINGS, *_KEPT, *_MERGED))}

STUFF_171 = table({category - 1: index for index, category in enumerate((*_THINGS, *range(92, 183)))})
"""COCO-Stuff label (0 to 181, 255) to 171 classes."""
PANOPTIC_133 = table(_PANOPTIC)
"""COCO panoptic category id (1 to 200) to 133 classes."""
STUFF_TO_PANOPTIC = table(
    {category - 1: _PANOPTIC[category] for category in (*_THINGS, *_KEPT)}
    | {old - 1: _PANOPTIC[new] for new, merged in _MERGED.items() for old in merged}
)
"""COCO-Stuff label (0 to 181, 255) to the 133 classes of COCO panoptic."""
