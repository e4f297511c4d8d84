"""Stored rows and what is made of them: summaries, tables, figures."""
