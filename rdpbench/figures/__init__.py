"""Figures and tables of papers and of runs.

``presets`` and ``data`` say what is drawn, ``curves``, ``heatmap``, ``examples`` draw.
"""
