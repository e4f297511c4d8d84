"""Figures and tables of papers and of runs.

``data`` says what is drawn, ``curves`` and ``examples`` draw, ``notes`` has the words.
"""
