"""hific."""
