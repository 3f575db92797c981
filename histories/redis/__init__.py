"""Histories on Redis."""
