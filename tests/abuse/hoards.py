"""What fills memory: turns, bodies and pages that are as large as they may be, and many of them at once."""

from __future__ import annotations

import httpx

from tests.abuse.attack import attack
from tests.abuse.calls import (
    ELSEWHERE,
    Told,
    conversation,
    everything,
    few,
    question,
    raw,
    send,
    turn,
)
from tests.abuse.kin import get_all, head_of, unread
from tests.live_server import Live


async def _a_huge_turn(server: Live, scale: float) -> Told:
    """One of 12 MB, about the longest that an import may bring."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(120)
        text = "All work and no play makes Jack a dull boy. " * few(270_000, scale)
        huge = conversation("huge", [turn(0, 1, "x")])
        huge["turns"][0]["output"][0]["data"]["content"] = text
        return await everything([send(client, "POST", "/sessions/import", huge)])


@attack("200", "429", prepare=_a_huge_turn)
async def readers_of_a_huge_turn(server: Live, scale: float) -> Told:
    """A turn of 12 MB, asked for in each way that there is, 20 times at once."""
    place = "/sessions/huge"
    paths = [f"{place}/turns", f"{place}/turns/t0", f"{place}/turns/t0/stream", f"{place}/export",
             f"{place}/export?format=markdown", place]  # fmt: skip
    return await get_all(server, paths, few(20, scale), timeout=120)


@attack("200", "409", "413", "422", "429", "ReadTimeout", prepare=_a_huge_turn)
async def turns_after_a_huge_turn(server: Live, scale: float) -> Told:
    """20 turns, whose past is a turn of 12 MB, in that session and in forks of it."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(60)
        body = {"session_id": "huge-2", "turn_id": "t0"}
        told = Told([await send(client, "POST", f"{_HUGE}/fork", body)])
        told.pop("201", None)
        return told + await everything(
            send(client, "POST", "/chat/invoke", question("What?", f"huge{'-2' * (n % 2)}"))
            for n in range(few(20, scale))
        )


_HUGE = "/sessions/huge"


async def _stalling(server: Live, body: bytes, address: str, wait_s: float) -> str:
    head = head_of(
        server, "POST", "/chat/invoke", f"Content-Length: {len(body) + 1000}", "Content-Type: application/json"
    )
    return await raw(server, [head + b"\r\n", body], wait_s=wait_s, address=address)


@attack("408", "429", "hung up", "still open")
async def large_bodies_that_stall(server: Live, scale: float) -> Told:
    """400 bodies of 4 MB that come, but for their last kilobyte."""
    body = b'{"input": {"input": "' + b"x" * few(4_000_000, scale)
    return await everything(_stalling(server, body, ELSEWHERE, 20 * scale) for _ in range(few(400, scale)))


@attack("200", "202", "413", "422", "429", "ReadTimeout")
async def large_turns_in_line(server: Live, scale: float) -> Told:
    """300 turns of 4 MB at once, for which nobody waits, and 100 for which somebody does."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(30)
        words = "[[n 50]] [[slow 0.1]] " + "word " * few(780_000, scale)
        headers = {"Prefer": "respond-async"}
        return await everything(
            send(client, "POST", "/chat/invoke", question(words, f"line-{n}"), headers if n % 4 else None)
            for n in range(few(400, scale))
        )


async def _long_pages(server: Live, scale: float) -> Told:
    """A session whose pages are as large as pages are."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(120)
        long = conversation("long", [turn(number, 1, "x" * few(40_000, scale)) for number in range(200)])
        return await everything([send(client, "POST", "/sessions/import", long)])


@attack("unread", prepare=_long_pages)
async def pages_that_nobody_reads(server: Live, scale: float) -> Told:
    """1,000 pages of turns, of which nothing is taken."""
    said = head_of(server, "GET", "/sessions/long/turns?limit=200") + b"\r\n"
    return await everything(unread(server, said, 20 * scale) for _ in range(few(1000, scale)))
