"""The abuse suite: what one caller, or somebody without a credential, can do to others.

`python -m tests.abuse` starts a server, lets one user do each of the attacks, and measures meanwhile how long another
user waits. Everything happens on this machine's loopback, against a server of its own.
"""
