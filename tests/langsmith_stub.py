"""A collector that takes what LangSmith's client posts, and keeps the runs.

    with LangSmithStub() as langsmith:
        ...  # in another process, with langsmith.environment() in its environment
        run = langsmith.wait_for(lambda run: run.get("name") == "ChatOpenAI" and run.get("outputs"))

A run is posted when it starts and patched when it ends, in parts: `runs` has what is known of each by now.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from email import message_from_bytes
from typing import Any

import zstandard

from tests.stub_server import StubServer, Wire

Run = dict[str, Any]


class LangSmithStub(StubServer):
    """The collector. `compression` is whether it says that it takes compressed bodies."""

    def __init__(self, *, compression: bool = True) -> None:
        self.runs: dict[str, Run] = {}
        self.feedback: dict[str, Run] = {}
        self.calls: list[tuple[str, str]] = []
        self.api_keys: set[str] = set()
        self._compression = compression
        self._changed = threading.Condition()
        super().__init__()

    def environment(self) -> dict[str, str]:
        """The variables that turn tracing on, to this collector."""
        return {"LANGSMITH_TRACING": "true", "LANGSMITH_ENDPOINT": self.url, "LANGSMITH_API_KEY": "a-key-for-tests"}

    def wait_for(self, wanted: Callable[[Run], Any], timeout: float = 60) -> Run:
        """The first run that is wanted, as soon as it is there; raises `TimeoutError` otherwise."""
        with self._changed:
            if not self._changed.wait_for(lambda: any(map(wanted, self.runs.values())), timeout):
                raise TimeoutError(f"no such run among {[run.get('name') for run in self.runs.values()]}")
            return next(filter(wanted, self.runs.values()))

    async def exchange(self, wire: Wire) -> None:
        body = await wire.body()
        if wire.headers.get("content-encoding") == "zstd":
            body = zstandard.ZstdDecompressor().stream_reader(body).read()
        status = 202
        with self._changed:
            self.calls.append((wire.method, wire.path))
            self.api_keys.add(wire.headers.get("x-api-key", ""))
            if wire.path == "/runs/multipart":
                self._take_parts(wire.headers["content-type"], body)
            elif wire.path == "/runs/batch":
                batch = json.loads(body)
                for run in (*batch.get("post", ()), *batch.get("patch", ())):
                    self._take(run["id"], run)
            elif wire.path.startswith("/feedback/") and wire.method == "PATCH":
                feedback_id = wire.path.rpartition("/")[2]
                if feedback_id in self.feedback:
                    self.feedback[feedback_id] |= json.loads(body)
                else:
                    status = 404
            elif wire.path.startswith("/runs") and wire.method in ("POST", "PATCH"):
                run = json.loads(body)
                self._take(run.get("id") or wire.path.rpartition("/")[2], run)
            self._changed.notify_all()
        if wire.path == "/info":
            await wire.json(200, self._info())
        else:
            await wire.json(status, {})

    def _info(self) -> dict[str, Any]:
        return {
            "version": "0.14",
            "instance_flags": {"zstd_compression_enabled": self._compression},
            "batch_ingest_config": {
                "use_multipart_endpoint": True,
                "size_limit": 100,
                "size_limit_bytes": 20_971_520,
                "scale_up_nthreads_limit": 4,
                "scale_up_qsize_trigger": 100,
                "scale_down_nempty_trigger": 4,
            },
        }

    def _take_parts(self, content_type: str, body: bytes) -> None:
        form = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
        for part in form.walk():
            name = part.get_param("name", header="content-disposition")
            if not isinstance(name, str):
                continue
            kind, run_id, *rest = name.split(".")  # post.<id>, patch.<id>, post.<id>.inputs, patch.<id>.outputs, …
            payload = part.get_payload(decode=True)
            if kind == "feedback" and isinstance(payload, bytes):
                told = json.loads(payload)
                self.feedback[told["id"]] = told
            elif kind in ("post", "patch") and isinstance(payload, bytes):
                value = json.loads(payload)
                self._take(run_id, {rest[0]: value} if rest else value)

    def _take(self, run_id: str, news: Run) -> None:
        run = self.runs.setdefault(run_id, {})
        run.update({key: value for key, value in news.items() if value is not None})
