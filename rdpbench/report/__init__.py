"""A run as one static folder that opens from the file system: curves, tables, and the images themselves.

===============  =====================================================================
`command`        ``rdpbench report``: its words, the order of the work, the images and the folder
`data`           what a run shows, and the scripts that hand it to the page
`cards`          what is known of each codec, dataset and metric
``static/``      the page: HTML, CSS and plain scripts, copied as they are
===============  =====================================================================

The page has nothing of a run in its HTML: names, captions and errors come as data and are put in as text.
"""
