"""From a command to rows: what is left to do, and who does it.

Read ``task`` (one image of one cell, and its row), ``preflight`` (can it run?), ``plan`` (what is left), ``execute`` (a
whole command), ``pool`` (processes), ``worker`` (what one of them does with a chunk), ``coding`` (an image to bytes and
back) in this order; then ``sets`` (set metrics), ``verify`` and ``search`` (settings for a target rate).
"""
