"""A server that speaks as much of OpenAI's protocol as ChatOpenAI needs: `python -m bench.openai_stub FIRST_S TOKEN_S`.

It says the benchmark's 60 tokens at once, or the first of them after FIRST_S and the others TOKEN_S apart, and prints
its port. Hand-written, so that it is not what is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from typing import Any

from bench.models import TOKENS

_HEAD = {"id": "chatcmpl-1", "created": 0, "model": "stub"}


def _sse(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %s\n\n" % json.dumps({**_HEAD, "object": "chat.completion.chunk", "choices": [choice]}).encode()


def _models() -> bytes:
    """The list of models, as vLLM gives it. So much fits the model that a prompt holds all messages of a history."""
    return _json({"object": "list", "data": [{"id": "stub", "object": "model", "max_model_len": 32_768}]})


def _json(value: dict[str, Any]) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def _whole() -> bytes:
    message = {"role": "assistant", "content": "".join(TOKENS)}
    usage = {"prompt_tokens": 20, "completion_tokens": 60, "total_tokens": 80}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return _json({**_HEAD, "object": "chat.completion", "choices": [choice], "usage": usage})


def _streamed() -> list[bytes]:
    events = [_sse({"role": "assistant", "content": ""}), *(_sse({"content": token}) for token in TOKENS)]
    events += [_sse({}, "stop"), b"data: [DONE]\n\n"]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head, *(b"%x\r\n%s\r\n" % (len(event), event) for event in events), b"0\r\n\r\n"]


async def _answer(first_s: float, token_s: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    whole, streamed = _whole(), _streamed()
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not head.startswith(b"post "):  # somebody asks what the model takes
                writer.write(_models())
                continue
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = json.loads(await reader.readexactly(size))
            await asyncio.sleep(first_s)
            if not body.get("stream"):
                writer.write(whole)
            elif not token_s:
                writer.write(b"".join(streamed))
            else:
                await _say_slowly(streamed, token_s, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _say_slowly(parts: list[bytes], token_s: float, writer: asyncio.StreamWriter) -> None:
    loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    writer.write(b"".join(parts[:3]))  # the head, the role, the first token
    for place, part in enumerate(parts[3:], 1):
        await asyncio.sleep(began + place * token_s - loop.time())
        writer.write(part)


async def _serve(first_s: float, token_s: float) -> None:
    server = await asyncio.start_server(partial(_answer, first_s, token_s), "127.0.0.1", 0, backlog=4096)
    print(json.dumps({"port": server.sockets[0].getsockname()[1], "headers": {}}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(*map(float, sys.argv[1:3])))
