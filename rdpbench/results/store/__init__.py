"""What is stored of a run: ``schema`` (field by field), ``keys`` (what it depends on), ``log`` (as it is written),
``store`` (the folder, and how the log becomes Parquet)."""
