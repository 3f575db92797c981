"""The clients, in a process of their own: `python -m bench.load`, jobs in and results out, one line of JSON each.

A client keeps one connection, and sends the next turn when the last has been answered. HTTP is read by hand and no
more of it than is needed, so that the client is not what is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, cast
from uuid import NAMESPACE_OID, uuid4, uuid5

from typing_extensions import override


@dataclass(frozen=True, kw_only=True)
class Job:
    """What clients do: `seconds` of turns one after another, or `turns` of them each, whichever is given.

    A client goes on to a new session every `turns_per_session` turns, or keeps to `session`. Of several servers, each
    turn goes to the one with the fewest under way, as a load balancer would send it.
    """

    ports: list[int]
    headers: dict[str, str]
    endpoint: str
    clients: int = 1
    seconds: float = 0.0
    turns: int = 0
    turns_per_session: int = 10
    session: str = ""
    sessions: list[str] = field(default_factory=list)
    """New sessions have these names, as long as there are any."""
    path: str = "/tutor"
    ramp_s: float = 0.0
    """Over how long the clients arrive."""
    agents: bool = False
    """Whether the servers speak LangGraph's protocol: a session is a thread, and a turn a run of it."""
    model: bool = False
    """Whether they are models' own, and speak OpenAI's protocol."""
    watch_port: int = 0
    """Another server of the same store, where somebody follows each turn from its first token on."""


@dataclass(kw_only=True)
class Outcome:
    """What became of a job. Times are in milliseconds; `firsts` are until the first token, `gaps` between tokens."""

    turns: int = 0
    failed: int = 0
    seconds: float = 0.0
    bytes: int = 0
    times: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    watched: int = 0
    watched_gaps: list[float] = field(default_factory=list)
    problem: str = ""


class _Connection(asyncio.Protocol):
    """One kept-alive connection: sends a request, and finds where its response begins, goes on and ends."""

    def __init__(self, mark: bytes = b"event: data") -> None:
        self.mark = mark
        """What begins each token of a stream."""
        self.transport: asyncio.Transport | None = None
        self.done: asyncio.Future[bytes] | None = None
        self.began = asyncio.Event()
        """Whether the first token is there."""
        self._tail, self._missing = b"", -1
        self.bytes, self.first, self.tokens = 0, 0.0, list[float]()
        self._status, self._head = b"", b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not of asyncio's classes

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_result(b"lost " + self._status + self._tail[-300:])

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """The response's status line, and its last bytes, once it has come whole."""
        assert self.transport is not None
        self.done = asyncio.get_running_loop().create_future()
        self.began.clear()
        self._tail, self._missing, self._head, self._status = b"", -1, b"", b""
        self.first, self.bytes, self.tokens = 0.0, 0, []
        self.transport.write(request)
        return self.done

    @override
    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        if not self._status:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            self._status = head.partition(b"\r\n")[0]
            size = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._missing = int(size) if size else -1
        if data:
            now = time.perf_counter()
            said = data.count(self.mark)
            if said and not self.first:
                self.first = now
                self.began.set()
            self.tokens += [now] * said
        self._tail = self._tail[-400:] + data
        if self._missing >= 0:
            self._missing -= len(data)
        if self._missing == 0 or (self._missing < 0 and self._tail.endswith(b"\r\n0\r\n\r\n")):
            assert self.done is not None
            self.done.set_result(self._status + b"\n" + self._tail)


def _request(job: Job, session: str, turn_id: str = "") -> bytes:
    path, question = f"{job.path}/{job.endpoint}", "What does the cosine of an angle mean, and what is it for?"
    value: dict[str, Any] = {
        "input": {"ability": "math", "input": question},
        "config": {"configurable": {"session_id": session, **({"turn_id": turn_id} if turn_id else {})}},
    }
    if job.agents:
        run = "wait" if job.endpoint == "invoke" else job.endpoint
        path = f"/threads/{uuid5(NAMESPACE_OID, session)}/runs/{run}"
        value = {
            "assistant_id": job.path.removeprefix("/"),
            "input": {"messages": [{"role": "user", "content": question}]},
            "stream_mode": ["messages-tuple"] if job.endpoint == "stream" else ["values"],
            "if_not_exists": "create",
        }
    if job.model:
        path = "/v1/chat/completions"
        value = {"model": "stub", "stream": True, "messages": [{"role": "user", "content": question}]}
    body = json.dumps(value).encode()
    headers = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(body)), **job.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def _is_whole(job: Job, answer: bytes, tokens: int) -> bool:
    """Whether it is an answer to its end."""
    if not answer.startswith(b"HTTP/1.1 200"):
        return False
    if job.model:
        return b"[DONE]" in answer
    if not job.agents:
        return (b"}" if job.endpoint == "invoke" else b"event: end") in answer
    is_error = b"event: error" in answer or b"__error__" in answer
    return not is_error and (tokens > 1 if job.endpoint == "stream" else b'"ai"' in answer)


async def _watcher(job: Job, session: str, turn_id: str, asked: _Connection, outcome: Outcome) -> None:
    """Follows a turn at the other server, and counts it as failed if it is not heard to its end."""
    await asked.began.wait()
    _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", job.watch_port)
    headers = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "127.0.0.1", **job.headers}.items())
    place = f"/sessions/{session}/turns/{turn_id}/stream"
    answer = await connection.ask(f"GET {place} HTTP/1.1\r\n{headers}\r\n".encode())
    outcome.watched += 1
    if not answer.startswith(b"HTTP/1.1 200") or b"event: end" not in answer:
        outcome.failed += 1
        outcome.problem = answer[:400].decode(errors="replace")
    outcome.watched_gaps += [(after - before) * 1000 for before, after in pairwise(connection.tokens)]
    assert connection.transport is not None
    connection.transport.close()


async def _watched_client(job: Job, place: int, outcome: Outcome) -> None:
    """One turn, and who follows it."""
    await asyncio.sleep(job.ramp_s * place / job.clients)
    session, turn_id = f"s-{uuid4().hex}", uuid4().hex
    _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", job.ports[0])
    watching = asyncio.create_task(_watcher(job, session, turn_id, connection, outcome))
    started = time.perf_counter()
    answer = await connection.ask(_request(job, session, turn_id))
    outcome.turns += 1
    if not answer.startswith(b"HTTP/1.1 200") or b"event: end" not in answer:
        outcome.failed += 1
        outcome.problem = answer[:400].decode(errors="replace")
        connection.began.set()  # or who watches would wait for ever
    outcome.firsts.append((connection.first - started) * 1000)
    outcome.gaps += [(after - before) * 1000 for before, after in pairwise(connection.tokens)]
    await watching
    assert connection.transport is not None
    connection.transport.close()


async def _client(
    job: Job, place: int, stop_at: float, under_way: list[int], names: Iterator[str], outcome: Outcome
) -> None:
    if job.ramp_s:
        await asyncio.sleep(job.ramp_s * place / job.clients)
    mark = b"event: messages" if job.agents else b"data: {" if job.model else b"event: data"
    loop, made = asyncio.get_running_loop(), partial(_Connection, mark)
    connections = [(await loop.create_connection(made, "127.0.0.1", port))[1] for port in job.ports]
    turn, request = 0, b""
    while (turn < job.turns) if job.turns else (time.perf_counter() < stop_at):
        if turn % job.turns_per_session == 0:
            request = _request(job, job.session or next(names, f"s-{uuid4().hex}"))
        server = min(range(len(under_way)), key=under_way.__getitem__)
        connection = connections[server]
        turn += 1
        under_way[server] += 1
        started = time.perf_counter()
        answer = await connection.ask(request)
        now = time.perf_counter()
        under_way[server] -= 1
        outcome.turns += 1
        if not _is_whole(job, answer, len(connection.tokens)):
            outcome.failed += 1
            outcome.problem = answer[:400].decode(errors="replace")
            if answer.startswith(b"lost"):
                return
            continue
        outcome.times.append((now - started) * 1000)
        outcome.bytes += connection.bytes
        if connection.first:
            outcome.firsts.append((connection.first - started) * 1000)
        tokens = connection.tokens
        outcome.gaps += [(after - before) * 1000 for before, after in pairwise(tokens)]
    for connection in connections:
        assert connection.transport is not None
        connection.transport.close()


async def run(job: Job) -> Outcome:
    """Does a job."""
    outcome, under_way, started = Outcome(), [0] * len(job.ports), time.perf_counter()
    stop_at, names = started + job.seconds, iter(job.sessions)
    if job.watch_port:
        await asyncio.gather(*(_watched_client(job, place, outcome) for place in range(job.clients)))
    else:
        clients = (_client(job, place, stop_at, under_way, names, outcome) for place in range(job.clients))
        await asyncio.gather(*clients)
    outcome.seconds = time.perf_counter() - started
    return outcome


def main() -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            outcome = runner.run(run(Job(**json.loads(line))))
            if len(outcome.gaps) > 200_000:
                outcome.gaps = outcome.gaps[:: len(outcome.gaps) // 100_000]
            print(json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    main()
