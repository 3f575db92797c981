"""Names of files: an id's, readable, safe on every file system, and never shared by two ids; and those of none."""

from __future__ import annotations

import os
import random
import re
import unicodedata
from functools import lru_cache
from hashlib import sha256

_random = random.Random()  # noqa: S311 - of no use to who guesses it; a chain that seeds Python's own changes nothing
os.register_at_fork(after_in_child=_random.seed)


def new_name() -> str:
    """16 hexadecimal digits that no other call gives, in this process or another. Not a secret.

    Without asking the system: after each call of it a thread has to win Python's lock back.
    """
    return f"{_random.getrandbits(64):016x}"


@lru_cache(maxsize=1024)
def file_name(any_id: str) -> str:
    """A slug of the id and a hash of all of it, in lower-case ASCII, at most 73 characters.

    The hash decides (128 bits), so that ids that differ only in case, normalization or punctuation stay apart; the
    slug is there for people.
    """
    digest = sha256(any_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    ascii_id = unicodedata.normalize("NFKD", any_id[:128]).encode("ascii", "ignore").decode("ascii").lower()
    slug = re.sub("[^a-z0-9]+", "-", ascii_id).strip("-")[:40].strip("-")
    return f"{slug}-{digest}" if slug else digest
