"""From rows to numbers. Read `points` first: what a point is, and which rows, scores and images are in its numbers."""
