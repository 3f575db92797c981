"""/metrics: who gets it, what it counts, and that dashboard and alerts name what is there."""

from __future__ import annotations

import json
import re
import socket
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from api.door import DoorRules
from api.ops.metrics import Metrics
from api.ops.reasons import REASONS
from auth.keys import ApiKeys
from tests.calls import call
from tests.echo_model import EchoModel
from tests.live_server import PLAIN, ROOT, langserve_warns, serve_here, start, wait_for
from tests.openai_stub import OpenAIStub
from tests.operators import logging_as_json, metric, scrape

pytestmark = langserve_warns
yaml: Any = import_module("yaml")
DASHBOARD = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
RULES = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())["groups"][0]["rules"]


def test_metrics_are_for_a_key_of_their_own_which_opens_nothing_else(tmp_path: Path) -> None:
    with serve_here(tmp_path, model=EchoModel()) as server:
        _, key = ApiKeys(server.data_dir).create("prometheus", scopes=("metrics",))
        with server.client(None) as nobody, server.client("alice") as alice:
            headers = {"Authorization": f"Bearer {key}"}
            assert nobody.get("/metrics").status_code == 401
            assert alice.get("/metrics").status_code == 403
            assert nobody.get("/metrics", headers=headers).headers["content-type"].startswith("text/plain")
            assert nobody.get("/sessions", headers=headers).status_code == 403
            assert nobody.post("/login", data={"key": key}, headers={"Origin": server.url}).status_code == 401


def test_turns_tokens_requests_and_the_store_are_counted(tmp_path: Path) -> None:
    with OpenAIStub() as stub, serve_here(tmp_path, openai_base_url=stub.base_url) as server, server.client() as client:
        call(client, "one", "s", way="stream")
        call(client, "two", "s")
        call(client, "two", "bad/id")
        for guess in ("/nothing", "/sessions/a", "/sessions/b"):
            client.get(guess)
        text = scrape(server)
    assert metric(text, "recollect_turns_total", chain="chat", outcome="complete") == 2
    assert metric(text, "recollect_tokens_total", kind="output") > 2
    assert metric(text, "recollect_first_token_seconds_count", chain="chat") == 2
    assert metric(text, "recollect_turns_running") == metric(text, "recollect_turns_waiting") == 0
    assert metric(text, "recollect_store_seconds_count", operation="begin") == 2
    assert metric(text, "recollect_store_seconds_count", operation="end") == 2
    assert metric(text, "recollect_store_errors_total") == 0
    assert metric(text, "recollect_http_requests_total", route="/sessions/{session_id}", status="404") == 2
    assert metric(text, "recollect_http_requests_total", route="/chat/invoke", status="422") == 1


def test_workers_are_counted_together_and_the_dead_are_not_running(tmp_path: Path) -> None:
    with OpenAIStub() as stub, start(tmp_path, OPENAI_BASE_URL=stub.base_url, RECOLLECT_WORKERS="2") as server:
        headers = server.headers("alice")
        for number in range(12):  # each on a connection of its own, so that both workers get some
            with httpx.Client(base_url=server.url, headers=headers, verify=PLAIN, timeout=60) as client:
                assert call(client, "one", f"s{number}").status_code == 200
        wait_for(lambda: metric(scrape(server), "recollect_turns_total", outcome="complete") == 12, "all turns")
        assert metric(scrape(server), "recollect_turns_running") == 0


def test_connections_are_counted_and_who_is_refused_at_the_door_is_told(tmp_path: Path) -> None:
    with (
        logging_as_json() as log,
        serve_here(tmp_path, model=EchoModel(), door=DoorRules(connections_per_address=3, header_bytes=1000)) as server,
        server.client() as first,
    ):
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        _, key = ApiKeys(server.data_dir).create("prometheus", scopes=("metrics",))

        def seen(name: str, **labels: str) -> float:
            text = first.get("/metrics", headers={"Authorization": f"Bearer {key}"}).raise_for_status().text
            return metric(text, name, **labels)

        assert seen("recollect_connections") == 1
        with socket.create_connection(address), socket.create_connection(address):
            wait_for(lambda: seen("recollect_connections") == 3, "two more")
            with socket.create_connection(address, 10) as fourth:
                assert b" 429 " in fourth.recv(100)
            assert seen("recollect_door_refusals_total", status="429") == 1
        wait_for(lambda: seen("recollect_connections") == 1, "the two to be gone")
        with socket.create_connection(address, 10) as long:
            long.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000)
            assert b" 431 " in long.recv(100)
        assert seen("recollect_door_refusals_total", status="431") == 1
        wait_for(lambda: "429: 1" in log.text and "431: 1" in log.text, "the log's lines")
        assert all(line["level"] == "warning" for line in log.lines(logger="recollect.door"))


def exported() -> set[str]:
    """The names of all samples that there can be."""
    names = set[str]()
    metrics = Metrics()
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        kinds = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}[family.type]
        names |= {family.name + kind for kind in kinds}
    return names


def queries() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    return panels + [rule["expr"] for rule in RULES]


def test_dashboard_and_alerts_name_what_is_exported() -> None:
    named = {name for query in queries() for name in re.findall(r"recollect_\w+", query)}
    assert named <= exported()
    assert len(named) >= 12
    matches = [match for query in queries() for match in re.findall(r'reason=~?"([^"]+)"', query)]
    assert {reason for match in matches for reason in match.split("|")} <= REASONS | {"bad_credential"}


def test_each_alert_is_explained_in_the_documentation() -> None:
    text = (ROOT / "docs" / "operate.md").read_text()
    for rule in RULES:
        assert f"`{rule['alert']}`" in text
        assert rule["annotations"]["summary"]
