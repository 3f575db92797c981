"""What is forgotten leaves the disk, and nothing else does."""

from __future__ import annotations

from pathlib import Path

from histories.files.store import FileStore
from tests.files import log_of
from tests.proofs import proves
from tests.stores import begun, replied, said, talk


@proves("G14")
async def test_what_was_forgotten_leaves_the_disk_and_what_is_only_hidden_stays(tmp_path: Path) -> None:
    store = FileStore(tmp_path, fsync=False)
    history = store.history("alice", "s1")
    await talk(history, "first words")
    (hidden,) = [turn.turn_id for turn in (await history.turns()).items[-1:]]
    turn = await begun(history, said("other words", version_of=hidden))
    await turn.end(replied())
    for forgotten in ("second words", "third words"):
        await talk(history, forgotten)
    await history.rewind((await history.turns()).items[1].turn_id)
    assert await store.tidy() == 2
    kept = log_of(tmp_path).read_text()
    assert "first words" in kept
    assert "other words" in kept
    assert "second words" not in kept
    assert "third words" not in kept
    assert await store.tidy() == 0
    await history.choose(hidden)
    await history.delete()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "words" in path.read_text()]
