"""A run as one static folder that opens from the file system: curves, tables, and the images themselves.

===============  =====================================================================
`command`        ``rdpbench report``: its words, and the order of the work
`model`          runs as sets, curves and points with an id that a link can name
`pictures`       which images are made, and making them in processes of their own
`data`           what the page reads, as scripts: a page from a file may not fetch
`reproduce`      the command that makes one point again
`folder`         what is written where, and what is left over from before
``static/``      the page: HTML, CSS and plain scripts, copied as they are
===============  =====================================================================

The page has nothing of a run in its HTML: names, captions and errors come as data and are put in as text.
"""
