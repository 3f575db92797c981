"""A fork while others talk is of the line it was asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from typing_extensions import override

from histories.files.disk import Disk
from histories.files.store import FileStore
from tests.proofs import proves
from tests.stores import all_turns, talk


class _Meanwhile(Disk):
    """Does something just before one of the reads."""

    def __init__(self, at: int, then: Callable[[], object]) -> None:
        self._at, self._then, self.reads = at, then, 0

    @override
    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        self.reads += 1
        if self.reads == self._at:
            self._then()
        return super().read(descriptor, size, offset)


@proves("G1")
async def test_a_fork_ends_with_the_turn_that_was_named_whenever_others_begin_meanwhile(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    history = store.history("alice", "s1")
    ids = await talk(history, "one", "two", "three")
    (path,) = tmp_path.rglob("*.jsonl")
    before = path.read_bytes()
    await talk(history, "four", "five")
    more = path.read_bytes().removeprefix(before)

    def others_talk() -> None:
        with path.open("ab") as log:
            log.write(more)

    done = 0
    for named in (0, 1, 2):
        at, reads = 1, 1
        while at <= reads:
            path.write_bytes(before)
            store.disk = disk = _Meanwhile(at, others_talk)
            await history.fork(f"fork-{named}-{at}", ids[named])
            reads = disk.reads
            assert [t.turn_id for t in await all_turns(store.history("alice", f"fork-{named}-{at}"))] == ids[
                : named + 1
            ]
            at, done = at + 1, done + 1
    assert done > 6
    await store.close()
