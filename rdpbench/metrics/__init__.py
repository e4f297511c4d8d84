"""Metrics: one family, one file. A name also says how the metric is computed, such as `fid/clean`."""
