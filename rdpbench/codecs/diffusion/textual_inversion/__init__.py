"""textual_inversion."""
