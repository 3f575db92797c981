"""A server of one subject, in a process of its own: `python -m bench.serve SUBJECT MODEL FOLDER`.

Prints one line of JSON when it is ready: its port, and the headers that a client has to send. Ends with its standard
input, so it never outlives the benchmark. `GET /-bench` tells how long its event loop has kept others waiting.
"""

from __future__ import annotations

import asyncio
import io
import json
import socket
import sys
import warnings
from pathlib import Path
from typing import TextIO

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from bench.models import open_model
from bench.subjects import SUBJECTS

_TICK_S = 0.002


class Probe:
    """Answers `/-bench` itself: the lags of the event loop since it was last asked, in milliseconds."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._lags: list[float] = []

    async def measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_TICK_S)
            self._lags.append(max(0.0, loop.time() - before - _TICK_S) * 1000)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/-bench":
            lags, self._lags = sorted(self._lags), []
            await JSONResponse({"lags": lags})(scope, receive, send)
            return
        await self.app(scope, receive, send)


async def _serve(subject: str, model: str, folder: Path, speak: TextIO, *, measure_lag: bool) -> None:
    app, headers = SUBJECTS[subject](open_model(model), folder)
    probe = Probe(app)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(4096)
    config = uvicorn.Config(
        probe, log_level="error", access_log=False, http="httptools", timeout_graceful_shutdown=1, backlog=4096
    )
    server = uvicorn.Server(config)
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    ended.add_done_callback(lambda _: setattr(server, "should_exit", True))
    serving = asyncio.create_task(server.serve([sock]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    print(json.dumps({"port": sock.getsockname()[1], "headers": headers}), file=speak, flush=True)
    measuring = asyncio.create_task(probe.measure()) if measure_lag else None
    await serving
    if measuring is not None:
        measuring.cancel()


if __name__ == "__main__":
    import uvloop

    warnings.simplefilter("ignore")
    name, wanted, where = sys.argv[1:4]
    speak, sys.stdout = sys.stdout, io.StringIO()  # LangServe prints a banner
    uvloop.run(_serve(name, wanted, Path(where), speak, measure_lag="--lag" in sys.argv))
