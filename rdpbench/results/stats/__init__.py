"""From rows to numbers: `points` says what a point is and what values mean, `current` which rows are in it."""
