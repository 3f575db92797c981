"""What an offender does, row by row of what once stopped the server. Each attack is bounded in time and in number."""

from __future__ import annotations

import asyncio

import httpx

from tests.abuse.attack import a_turn_ended, attack
from tests.abuse.calls import ELSEWHERE, Told, config, conversation, everything, few, question, raw, send, turn
from tests.live_server import ROOT, Live

_CHAINS = {"RECOLLECT_CHAINS": str(ROOT / "tests" / "abuse" / "blocking")}
_COPIED_BYTES = 64 * 1024 * 1024
"""What RECOLLECT_COPIED_BYTES_PER_MINUTE is unless it is set."""


@attack()
async def nothing(server: Live, scale: float) -> Told:
    """What others wait when nobody does anything: on a machine that is busy otherwise, the measure of the rest."""
    await asyncio.sleep(3 * scale)
    return Told()


@attack("431", "hung up")
async def headers_without_end(server: Live, scale: float) -> Told:
    """A header of 128 MB, twice, by nobody."""
    said = b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"a" * few(128_000_000, scale)
    return await everything(raw(server, said, wait_s=15) for _ in range(2))


@attack("431", "hung up")
async def a_header_of_256_mb(server: Live, scale: float) -> Told:
    """One that ends, and so was answered once."""
    piece = b"a" * (1 << 20)

    def said() -> list[bytes]:
        pieces = [piece] * few(256, scale)
        return [b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ", *pieces, b"\r\n\r\n"]

    return await everything([raw(server, said(), wait_s=15)])


@attack("400")
async def hosts(server: Live, scale: float) -> Told:
    """Two Host headers, and none."""
    said = [b"", b"Host: a\r\nHost: b\r\n", b"Host: a\r\nhost: a\r\n"] * few(100, scale)
    return await everything(raw(server, b"GET /healthz HTTP/1.1\r\n%s\r\n" % one, wait_s=15) for one in said)


def _dawdling(server: Live) -> tuple[bytes, bytes, bytes]:
    """What never ends its headers, what never ends its body, and what says nothing."""
    key = server.key("mallory")
    return (
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n",
        f"POST /chat/invoke HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: 9\r\n\r\n{{".encode(),
        b"",
    )


@attack("408", "hung up", "still open")
async def connections_that_dawdle(server: Live, scale: float) -> Told:
    """300 that never end their headers, 300 that never end their body, 300 that say nothing."""
    count = few(300, scale)
    return await everything(
        raw(server, one, wait_s=45 * scale, address=ELSEWHERE) for one in _dawdling(server) for _ in range(count)
    )


@attack("408", "429", "503", "hung up", "still open", "refused", files=256)
async def connections_at_the_limit_of_files(server: Live, scale: float) -> Told:
    """The same, where the server may open 256 files."""
    return await connections_that_dawdle(server, scale)


@attack("429", "hung up", "still open")
async def many_idle_connections(server: Live, scale: float) -> Told:
    """6,000 from one address that say nothing."""
    return await everything(raw(server, b"", wait_s=20 * scale, address=ELSEWHERE) for _ in range(few(6000, scale)))


@attack("200", "422")
async def batches(server: Live, scale: float) -> Told:
    """A batch of 3,000, and some that are as large as they may be."""
    async with server.async_client("mallory") as client:
        sizes = [3000, *[100] * few(10, scale)]
        bodies = [
            {
                "inputs": [{"input": "x"}] * size,
                "config": [config(f"b{place}-{number}") for number in range(size)],
            }
            for place, size in enumerate(sizes)
        ]
        return await everything(send(client, "POST", "/chat/batch", body) for body in bodies)


async def _long_sessions(server: Live, scale: float) -> Told:
    """Takes in 14,000 short turns, and 80 turns of 1,000 messages."""
    short = conversation("short", [turn(number, 1, "x") for number in range(few(14_000, scale))])
    long = conversation("long", [turn(number, 999, "") for number in range(few(80, scale))])
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(180)
        return await everything(send(client, "POST", "/sessions/import", body) for body in (short, long))


@attack("201", "409")
async def imports(server: Live, scale: float) -> Told:
    """14,000 short turns, and 80 turns of 1,000 messages."""
    return await _long_sessions(server, scale)


@attack("200", prepare=_long_sessions)
async def pages(server: Live, scale: float) -> Told:
    """Of 200 turns, of both sessions, five at once."""
    return await _read(server, "/turns?limit=200")


@attack("200", prepare=_long_sessions)
async def exports(server: Live, scale: float) -> Told:
    """Of both sessions, five at once."""
    return await _read(server, "/export")


async def _read(server: Live, what: str) -> Told:
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(180)
        paths = [f"/sessions/{name}{what}" for name in ("short", "long") for _ in range(5)]
        return await everything(send(client, "GET", path) for path in paths)


@attack("200")
async def texts_to_render(server: Live, scale: float) -> Told:
    """Markdown that takes the square of its length, ten texts to a call, ten calls."""
    bodies = [{"texts": [text * (50_000 // len(text))] * 10} for text in ("*a_ ", "[]", "[x][")]
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(60)
        bodies = (bodies * 3)[: few(9, scale)]
        return await everything(send(client, "POST", "/render", body) for body in bodies)


def _large(scale: float) -> dict[str, object]:
    return conversation("large", [turn(number, 1, "x" * few(32_000, scale)) for number in range(60)])


async def _large_session(server: Live, scale: float) -> Told:
    """Of 4 MB."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(120)
        return await everything([send(client, "POST", "/sessions/import", _large(scale))])


@attack("201", "409", "429", prepare=_large_session)
async def forks(server: Live, scale: float) -> Told:
    """60 forks of a session of 4 MB: what is written stays below what one user may copy in a minute."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(120)
        bodies = [{"session_id": f"fork-{n}", "turn_id": "t59"} for n in range(few(60, scale))]
        told = await everything(send(client, "POST", "/sessions/large/fork", body) for body in bodies)
    size = 2 * 60 * few(32_000, scale)
    if (told["201"] - 1) * size > _COPIED_BYTES:
        told["more was written than may be"] += 1
    return told


@attack("200", "429")
async def streams(server: Live, scale: float) -> Told:
    """1,200 streams at once, each in a session of its own."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(60)
        return await everything(
            send(client, "POST", "/chat/stream", question("[[n 20]] x", f"s{n}")) for n in range(few(1200, scale))
        )


async def _crowd(server: Live, count: int, words: str, until_s: float) -> Told:
    """So many streams of one user at once, that ask again until the time is over; when each ended is noted."""
    over = asyncio.get_running_loop().time() + until_s

    async def ask(client: httpx.AsyncClient, number: int) -> str:
        body = question(words, f"crowd-{number}")
        told = await send(client, "POST", "/chat/stream", body)
        if told == "200":
            a_turn_ended()
        return told

    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(600)
        asking = {asyncio.create_task(ask(client, number)) for number in range(count)}
        done, waiting = await asyncio.wait(asking, timeout=max(0.0, over - asyncio.get_running_loop().time()))
        for one in waiting:
            one.cancel()
        await asyncio.wait(asking)
    return Told(task.result() for task in done) + Told({"gave up": len(waiting)})


_TWO_PLACES = {"RECOLLECT_TURNS": "2"}
_A_SECOND = "[[n 20]] [[slow 0.05]] Tell me something."


@attack("200", "gave up", settings=_TWO_PLACES, listens=True)
async def streams_30_on_two_places(server: Live, scale: float) -> Told:
    """30 streams on a model that answers two at a time, each in a second."""
    return await _crowd(server, 30, _A_SECOND, 20 * scale)


@attack("200", "gave up", settings=_TWO_PLACES, listens=True)
async def streams_500_on_two_places(server: Live, scale: float) -> Told:
    """500 of them."""
    return await _crowd(server, 500, _A_SECOND, 30 * scale)


_LONG = "Write a long story about a lighthouse, its keeper and the sea."


@attack("200", "gave up", listens=True, embedded=True)
async def streams_30_on_the_embedded_model(server: Live, scale: float) -> Told:
    """30 streams on the embedded model, which answers two at a time."""
    return await _crowd(server, 30, _LONG, 60 * scale)


@attack("200", "gave up", listens=True, embedded=True)
async def streams_500_on_the_embedded_model(server: Live, scale: float) -> Told:
    """500 of them."""
    return await _crowd(server, 500, _LONG, 60 * scale)


@attack("200", "429", "ReadTimeout", settings=_CHAINS, beside="quick")
async def blocking_functions(server: Live, scale: float) -> Told:
    """14 at once in a chain that blocks for five seconds, then 100, while another chain answers at once."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(90)
        told = Told()
        for count in [14, 100] if scale >= 1 else [few(100, scale)]:
            told += await everything(
                send(client, "POST", "/slow/invoke", {"input": "x", "config": config(f"block-{n}")})
                for n in range(count)
            )
        return told


@attack("200", "429", "ReadTimeout")
async def turns_in_one_session(server: Live, scale: float) -> Told:
    """701 turns that wait for one another."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(15)
        return await everything(
            send(client, "POST", "/chat/invoke", question("x", "one")) for _ in range(few(701, scale))
        )


@attack("401", "429")
async def wrong_keys(server: Live, scale: float) -> Told:
    """600 keys that are none."""
    async with server.async_client(None) as client:
        headers = {"Authorization": "Bearer rk_wrong"}
        return await everything(send(client, "GET", "/sessions", headers=headers) for _ in range(few(600, scale)))


@attack("200", "422")
async def large_bodies(server: Live, scale: float) -> Told:
    """4 MB of JSON made of many values, to an endpoint that checks them all."""
    history = [{"type": "human", "content": "x"}] * few(80_000, scale)
    body = {"input": {"input": "x", "history": history}, "config": config("large-body")}
    async with server.async_client("mallory") as client:
        return await everything(send(client, "POST", f"/chat/{way}", body) for way in ("invoke", "stream_log") * 3)
