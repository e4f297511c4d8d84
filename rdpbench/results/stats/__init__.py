"""From rows to numbers: `points` says what a point is, `current` which rows are in it, `meanings` what values mean."""
