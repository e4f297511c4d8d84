"""From plan to rows: what is left to do, and who does it."""
