"""Outputs of every kind, thrown at a server: none keeps a session, and none fails without a reason in the log.

`python -m tests.fuzz` (or `make fuzz`) is the long form, of 2,000 outputs; `test_fuzz.py` the short one.
"""
