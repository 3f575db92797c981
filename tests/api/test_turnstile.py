"""The turnstile: a crowd of one caller's requests does not begin in one round of the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from starlette.types import Receive, Scope, Send

from api.turnstile import Turnstile

CROWD = 500


class _App:
    """Notes who begins in which round of the loop."""

    def __init__(self) -> None:
        self.round, self.begun = 0, list[tuple[int, str]]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun.append((self.round, scope["path"]))

    def count_rounds(self) -> None:
        self.round += 1
        if self.round < CROWD:
            asyncio.get_running_loop().call_soon(self.count_rounds)


async def _nothing(*_: Any) -> Any:
    raise AssertionError


def _asked(turnstile: Turnstile, path: str, *headers: tuple[bytes, bytes], client: str = "10.0.0.1") -> Any:
    scope = {"type": "http", "path": path, "headers": list(headers), "client": (client, 1)}
    return asyncio.ensure_future(turnstile(scope, _nothing, _nothing))


def _key(name: str) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + name.encode()


async def test_a_crowd_begins_a_few_at_a_time_and_others_at_once() -> None:
    app = _App()
    turnstile = Turnstile(app, at_once=4)
    app.count_rounds()
    crowd = [_asked(turnstile, "crowd", _key("mallory")) for _ in range(CROWD)]
    alone = [_asked(turnstile, "alice", _key("alice")), _asked(turnstile, "cookie", (b"cookie", b"bob"))]
    alone.append(_asked(turnstile, "nobody"))
    await asyncio.gather(*crowd, *alone)
    assert len(app.begun) == CROWD + len(alone)
    rounds = Counter(number for number, path in app.begun if path == "crowd")
    assert max(rounds.values()) <= 4
    first = min(number for number, _ in app.begun)
    assert [number for number, path in app.begun if path != "crowd"] == [first] * len(alone)


async def test_who_comes_later_does_not_pass_those_who_wait_and_gone_ones_hold_nobody_up() -> None:
    app = _App()
    turnstile = Turnstile(app, at_once=1)
    waiting = [_asked(turnstile, str(number), _key("mallory")) for number in range(6)]
    await asyncio.sleep(0)
    for gone in waiting[2:5]:
        gone.cancel()
    late = _asked(turnstile, "late", _key("mallory"))
    await asyncio.wait([*waiting, late], timeout=60)
    assert [path for _, path in app.begun] == ["0", "1", "5", "late"]
    await asyncio.wait_for(_asked(turnstile, "later", _key("mallory")), 60)


async def test_what_is_no_request_passes() -> None:
    app = _App()
    await Turnstile(app, at_once=1)({"type": "lifespan", "path": "start"}, _nothing, _nothing)
    assert app.begun == [(0, "start")]
