"""A session's file that appears whole, or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime

from histories.files.disk import Disk
from histories.files.log import Log
from histories.files.records import decode
from histories.unique import new_name


def create_log(
    disk: Disk, folder: int, path: str, content: bytes, *, at: datetime, sync: bool, replaces: bool = False
) -> Log:
    """Puts a file with this content at `path`, which lies in `folder`, and gives it, open for more.

    If it `replaces` one, there is one of them whatever fails.
    """
    name = os.path.basename(path)
    written = f"{name.partition('.')[0]}.{new_name()}.tmp"
    log = Log(disk, disk.open(folder, written, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND))
    log.identity = (*log.file, str(decode(content.partition(b"\n")[0]).get("file", "")))
    try:
        log.append(content, at=at, sync=sync, size=0)
        disk.rename(folder, written, name)
        written = name
        if sync:
            disk.sync(folder)
        log.check_place(path)
    except BaseException:
        if not (replaces and written == name):
            with suppress(OSError):
                disk.unlink(folder, written)
        log.close()
        raise
    return log
