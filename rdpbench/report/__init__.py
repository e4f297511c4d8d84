"""A run as one static folder that opens from the file system: curves, tables, and the images themselves.

===============  =====================================================================
`command`        ``rdpbench report``: its words, the order of the work, and the folder
`data`           what a run shows, and the scripts that hand it to the page
`pictures`       the images, made in processes of their own
``static/``      the page: HTML, CSS and plain scripts, copied as they are
===============  =====================================================================

The page has nothing of a run in its HTML: names, captions and errors come as data and are put in as text.
"""
