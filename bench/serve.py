"""A server of one subject, in a process of its own: `python -m bench.serve SUBJECT MODEL FOLDER`.

Prints one line of JSON when it is ready: its port, and the headers that a client has to send. Ends with its standard
input, so it never outlives the benchmark. `GET /-bench` tells how long its event loop has kept others waiting.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import socket
import sys
import warnings
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

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


async def _serve(options: argparse.Namespace, speak: TextIO) -> None:
    if options.subject == "recollect":
        import_module("server")  # first, as where it is served: it sees to how things are imported
    from bench.subjects import SUBJECTS, recollect  # here: they import what they serve

    make = partial(recollect, store=options.store) if options.subject == "recollect" else SUBJECTS[options.subject]
    app, headers = make(options.model, options.folder)
    probe = Probe(app)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(4096)
    config = uvicorn.Config(
        probe, log_level="error", access_log=False, http=_door(options), timeout_graceful_shutdown=1, backlog=4096
    )
    server = uvicorn.Server(config)
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    ended.add_done_callback(lambda _: setattr(server, "should_exit", True))
    serving = asyncio.create_task(server.serve([sock]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    print(json.dumps({"port": sock.getsockname()[1], "headers": headers}), file=speak, flush=True)
    measuring = asyncio.create_task(probe.measure()) if options.lag else None
    await serving
    if measuring is not None:
        measuring.cancel()


def _door(options: argparse.Namespace) -> Any:
    """Recollect is served through its own door, as it is in production; the others as uvicorn serves by itself."""
    if options.subject != "recollect":
        return "httptools"
    from api.door import Doorkeeper

    return Doorkeeper().protocol


def main() -> None:
    """Serves until the standard input ends."""
    import uvloop

    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(prog="python -m bench.serve")
    parser.add_argument("subject")
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--store", default="file:", help="URL of Recollect's histories")
    parser.add_argument("--lag", action="store_true", help="measure how late the event loop is")
    options = parser.parse_args()
    speak, sys.stdout = sys.stdout, io.StringIO()  # LangServe prints a banner
    uvloop.run(_serve(options, speak))


if __name__ == "__main__":
    main()
