"""Another user, in a process of their own: `python -m tests.abuse.bystander URL KEY`, until its input ends.

Prints how long `/healthz` and `/chat/invoke` took, and what went wrong, as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from dataclasses import asdict, dataclass, field

import httpx

_PAUSE_S = 0.05
_PATIENCE_S = 30.0
_PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # this process is to begin at once: it imports nothing of ours


@dataclass
class Seen:
    """Seconds of each answer, and a word for each that was none."""

    healthz: list[float] = field(default_factory=list)
    invoke: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def p99(self, what: str) -> float:
        times = sorted(getattr(self, what))
        return times[min(len(times) - 1, int(len(times) * 0.99))] if times else float("inf")


async def _again_and_again(client: httpx.AsyncClient, seen: Seen, what: str, over: asyncio.Event) -> None:
    number = 0
    while not over.is_set():
        number += 1
        begun = time.perf_counter()
        try:
            if what == "healthz":
                answer = await client.get("/healthz")
            else:
                config = {"configurable": {"session_id": f"mine-{number % 10}"}}
                answer = await client.post("/chat/invoke", json={"input": {"input": "Hello"}, "config": config})
            if answer.status_code != 200:
                seen.wrong.append(f"{what}: {answer.status_code}")
        except httpx.HTTPError as error:
            seen.wrong.append(f"{what}: {type(error).__name__}")
        getattr(seen, what).append(time.perf_counter() - begun)
        await asyncio.sleep(_PAUSE_S)


async def main(url: str, key: str) -> Seen:
    """Asks until the standard input ends."""
    seen, over = Seen(), asyncio.Event()
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=_PATIENCE_S, verify=_PLAIN) as client:
        asking = [asyncio.create_task(_again_and_again(client, seen, what, over)) for what in ("healthz", "invoke")]
        await asyncio.to_thread(sys.stdin.read)
        over.set()
        await asyncio.gather(*asking)
    return seen


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(main(*sys.argv[1:])))))
