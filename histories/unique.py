"""Names that nothing else has, in this process or another. They open nothing: who guesses one has gained nothing.

They come from a generator of their own: a chain that seeds Python's would make the same turn_id again, and the same
token for the next owner of a session. And the system is not asked for each: a thread that asks it lets go of Python's
lock, and waits behind other threads to have it again.
"""

from __future__ import annotations

import os
import random
from uuid import UUID

_random = random.Random()  # noqa: S311 - see above
os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """32 hexadecimal digits."""
    return f"{_random.getrandbits(128):032x}"


def new_name() -> str:
    """16 hexadecimal digits: enough within a folder, or a log."""
    return f"{_random.getrandbits(64):016x}"


def new_uuid() -> UUID:
    """A UUID of version 4."""
    return UUID(int=_random.getrandbits(128), version=4)
