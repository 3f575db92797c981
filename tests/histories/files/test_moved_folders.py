"""A folder of histories that is moved aside under a running store: what went there is not acknowledged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from typing_extensions import override

from histories.base import TurnLost
from histories.files.disk import Disk
from histories.files.store import FileStore
from tests.files import log_of
from tests.stores import all_turns, begun, replied, talk, texts

pytestmark = pytest.mark.usefixtures("closes_what_it_opens")


def _put_a_backup_in_place(store: FileStore) -> None:
    shutil.copytree(store.path, f"{store.path}-backup")
    os.rename(store.path, f"{store.path}-aside")
    os.rename(f"{store.path}-backup", store.path)


async def test_a_reply_that_went_to_a_folder_moved_aside_is_not_acknowledged(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "histories")
    await store.open()
    history = store.history("alice", "s1")
    await talk(history, "one")
    turn = await begun(history, "two")
    _put_a_backup_in_place(store)
    with pytest.raises(TurnLost):
        await turn.end(replied())
    await talk(history, "three")
    assert [texts(t.input) for t in await all_turns(history)] == [["one"], ["two"], ["three"]]
    await store.close()


async def test_what_begins_after_a_backup_was_put_in_place_goes_there(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "histories")
    await store.open()
    history = store.history("alice", "s1")
    await talk(history, "one")
    _put_a_backup_in_place(store)
    await talk(history, "two")
    assert [texts(t.input) for t in await all_turns(history)] == [["one"], ["two"]]
    await store.close()


async def test_a_title_that_went_to_a_file_that_was_replaced_meanwhile_goes_to_the_new_one(tmp_path: Path) -> None:
    class Moving(Disk):
        moved = False

        @override
        def write(self, descriptor: int, data: bytes) -> None:
            super().write(descriptor, data)
            if b'"r":"title"' in data and not self.moved:
                self.moved = True
                log = log_of(tmp_path)
                shutil.copy(log, tmp_path / "copy")
                os.rename(tmp_path / "copy", log)

    store = FileStore(tmp_path, disk=Moving())
    history = store.history("alice", "s1")
    await talk(history, "one")
    await history.rename("better")
    assert (await history.info()).title == "better"
    await store.close()
