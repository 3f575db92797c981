"""What an operator has: the log as JSON, the metrics, and the audit log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from api.ops.logs import configure
from auth.keys import ApiKeys
from tests.live_server import PLAIN, Live


class Log:
    """The log of this process, since the block began."""

    def __init__(self, stream: StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    def lines(self, **fields: Any) -> list[dict[str, Any]]:
        """The lines that have these fields, oldest first. Every line has to be JSON."""
        lines = [json.loads(line) for line in self.text.splitlines()]
        return [line for line in lines if fields.items() <= line.items()]


@contextmanager
def logging_as_json(level: str = "info") -> Iterator[Log]:
    """The log as `RECOLLECT_LOG_FORMAT=json` gives it, until the end of the block."""
    stream, root = StringIO(), logging.getLogger()
    before, threshold = root.handlers[:], logging.getLogger("recollect").level
    configure("json", level, stream)
    try:
        yield Log(stream)
    finally:
        root.handlers[:] = before
        logging.getLogger("recollect").setLevel(threshold)
        logging.captureWarnings(False)


def scrape(server: Live) -> str:
    """What Prometheus gets."""
    _, key = ApiKeys(server.data_dir).create("prometheus", scopes=("metrics",))
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.get(f"{server.url}/metrics", headers=headers, verify=PLAIN).raise_for_status().text


def metric(text: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples]
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())
