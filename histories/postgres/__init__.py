"""Histories on PostgreSQL."""
