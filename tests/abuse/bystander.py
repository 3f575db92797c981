"""Another user, in a process of their own: `python -m tests.abuse.bystander URL KEY CHAIN HOW`, until its input ends.

`HOW` is `invoke`, or `stream` to listen for the first token of each answer. Prints when `/healthz` and the chain were
asked, how long they took, what went wrong, and which turns were acknowledged, as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import httpx

_PAUSE_S = 0.05
_PATIENCE_S = 60.0
_PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # this process is to begin at once: it imports nothing of ours

Span = tuple[float, float]
"""From when to when, by `time.monotonic()`, which is the same clock in all processes of a machine."""


@dataclass
class Seen:
    """When each answer was asked for and when it was there, of a stream its first token; and a word for each that was
    none. `acknowledged` are session, turn, what was asked, and what was answered, of each turn that ended with a 200.
    """

    healthz: list[Span] = field(default_factory=list)
    invoke: list[Span] = field(default_factory=list)
    stream: list[Span] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    acknowledged: list[tuple[str, str, str, str]] = field(default_factory=list)

    def p99(self, what: str, during: Span = (0.0, float("inf"))) -> float:
        """Seconds, of what was under way within that time; without end if nothing was."""
        spans: Iterable[Span] = getattr(self, what)
        times = sorted(end - begun for begun, end in spans if begun < during[1] and end > during[0])
        return times[min(len(times) - 1, int(len(times) * 0.99))] if times else float("inf")

    def troubled_until(self, what: str, bar_s: float) -> float:
        """When the last answer came that took as long as `bar_s`, or longer."""
        spans: Iterable[Span] = getattr(self, what)
        return max((end for begun, end in spans if end - begun >= bar_s), default=0.0)


class _Bystander:
    def __init__(self, client: httpx.AsyncClient, chain: str) -> None:
        self._client, self._chain, self._number = client, chain, 0
        self.seen, self.over = Seen(), asyncio.Event()

    async def again_and_again(self, what: str) -> None:
        while not self.over.is_set():
            begun, first = time.monotonic(), 0.0
            try:
                first = await getattr(self, f"_{what}")()
            except httpx.HTTPError as error:
                self.seen.wrong.append(f"{what}: {type(error).__name__}")
            getattr(self.seen, what).append((begun, first or time.monotonic()))
            await asyncio.sleep(_PAUSE_S)

    async def _healthz(self) -> float:
        self._check("healthz", await self._client.get("/healthz"))
        return 0.0

    async def _invoke(self) -> float:
        session, turn, words, body = self._question()
        answer = await self._client.post(f"/{self._chain}/invoke", json=body)
        if self._check("invoke", answer):
            self.seen.acknowledged.append((session, turn, words, _text(answer.json()["output"])))
        return 0.0

    async def _stream(self) -> float:
        session, turn, words, body = self._question()
        first, pieces, ended = 0.0, list[str](), False
        async with self._client.stream("POST", f"/{self._chain}/stream", json=body) as answer:
            if not self._check("stream", answer):
                return first
            event = ""
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    event = line.removeprefix("event: ")
                    ended = event == "end"
                elif line.startswith("data: ") and event == "data":
                    first = first or time.monotonic()
                    pieces.append(_text(json.loads(line.removeprefix("data: "))))
                elif event == "error":
                    self.seen.wrong.append(f"stream: {line[:100]}")
        if ended:
            self.seen.acknowledged.append((session, turn, words, "".join(pieces)))
        return first

    def _question(self) -> tuple[str, str, str, dict[str, object]]:
        self._number += 1
        session, turn, words = f"mine-{self._number % 10}", f"turn-{self._number}", f"Hello, number {self._number}"
        config = {"configurable": {"session_id": session, "turn_id": turn}}
        said: object = {"input": words} if self._chain == "chat" else words
        return session, turn, words, {"input": said, "config": config}

    def _check(self, what: str, answer: httpx.Response) -> bool:
        if answer.status_code != 200:
            self.seen.wrong.append(f"{what}: {answer.status_code}")
        return answer.status_code == 200


def _text(output: object) -> str:
    """Of a message, or of a chain that gives text."""
    return str(output["content"]) if isinstance(output, dict) else str(output)


async def main(url: str, key: str, chain: str, how: str) -> Seen:
    """Asks until the standard input ends."""
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=_PATIENCE_S, verify=_PLAIN) as client:
        person = _Bystander(client, chain)
        asking = [asyncio.create_task(person.again_and_again(what)) for what in ("healthz", how)]
        await asyncio.to_thread(sys.stdin.read)
        person.over.set()
        await asyncio.gather(*asking)
    return person.seen


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(main(*sys.argv[1:])))))
