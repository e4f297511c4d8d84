"""Figures and tables of papers and of runs.

``data`` says what is drawn, ``curves``, ``heatmap`` and ``examples`` draw, ``notes`` has the words.
"""
