"""Where conversations are kept: one contract, one folder for each store.

`open_store` turns a URL into a store. A driver is imported only when its URL is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from histories.base import HistoryStore

#: URL scheme -> (module, class). Another store is a folder, a line here, and a parameter of the test fixture.
STORES: dict[str, tuple[str, str]] = {
    "file": ("histories.files.store", "FileStore"),
    "memory": ("histories.memory", "MemoryStore"),
    "redis": ("histories.redis.store", "RedisStore"),
    "rediss": ("histories.redis.store", "RedisStore"),
    "postgresql": ("histories.postgres.store", "PostgresStore"),
}


def open_store(url: str, *, default_dir: str = "./data/histories", fsync: bool = True) -> HistoryStore:
    """The store that `url` names, not yet opened.

    `default_dir` is where `file:` without a path keeps its files; `fsync` matters to files alone.
    Raises `ValueError` for a scheme that is not in `STORES`.
    """
    scheme = url.partition(":")[0]
    if scheme not in STORES:
        raise ValueError(f"unknown history store {scheme!r}: use one of {', '.join(STORES)}")
    module, name = STORES[scheme]
    store = getattr(import_module(module), name)
    if scheme == "file":
        return cast(HistoryStore, store(file_folder(url, default_dir), fsync=fsync))
    return cast(HistoryStore, store() if scheme == "memory" else store(url))


def file_folder(url: str, default_dir: str) -> str:
    """The folder that a `file:` URL names; `default_dir` if it names none."""
    return url.removeprefix("file:").removeprefix("//") or default_dir
