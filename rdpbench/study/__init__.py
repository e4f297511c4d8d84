"""Human studies: which of two reconstructions at the same rate looks closer to the original?

`pack` chooses reconstructions of runs at matched rates and writes the folder that raters open in a browser and, apart
from it, the key that says which codec is which. `votes` reads what comes back and trusts none of it, `bradley_terry`
turns it into scores, and `scores` puts these, or opinions of others, beside the metrics. `command` is
``rdpbench study``.
"""
