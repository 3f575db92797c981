"""Names of files: an id's, readable, safe on every file system, and never shared by two ids."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from hashlib import sha256


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
