"""Histories as files: one append-only log for each session."""
