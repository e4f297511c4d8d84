"""perco."""
