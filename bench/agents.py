"""Servers of agents that keep what was said, beside Recollect: Aegra and `langgraph dev`, each as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psycopg

from bench import deployed, throughput
from bench.parts import Bench, Result
from bench.peers import python_of_agents
from bench.processes import AGENTS, Server, openai_stub, serving, url_of
from bench.stores import NO_SERVER, postgres

_CROWD: Final = 8
_UUIDS: Final = "CREATE FUNCTION uuid_generate_v4() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()';"
_BASES: Final = ("langserve", "example")


def measure(bench: Bench) -> Result:
    """Whole turns in sessions of ten, a model behind OpenAI's protocol; what is added to one that takes its time."""
    with ExitStack() as stack:
        try:
            store = stack.enter_context(_plain_postgres())
        except NO_SERVER as reason:
            print(f"Aegra is left out: {reason}")
            store = ""
        with openai_stub() as url, _servers(bench, url, store) as servers:
            loads = [("invoke", _CROWD), ("stream", _CROWD)]
            rates = throughput.compare(bench, servers, loads, bases=_BASES)
        with deployed.waiting_model() as model, _servers(bench, url_of(model), store) as servers:
            return {**rates, "latency": deployed.latency(bench, model, servers, _CROWD)}


@contextmanager
def _servers(bench: Bench, model: str, store: str) -> Iterator[dict[str, Server]]:
    with bench.servers("recollect", "langserve", "example", model=model) as servers, ExitStack() as stack:
        for subject in AGENTS:
            python = python_of_agents(subject)
            if python is None:
                print(f"{subject} is left out: it can't be installed here.")
            elif subject != "aegra" or store:
                server = serving(subject, bench.place(), model=model, python=python, store=store)
                try:
                    servers[subject] = stack.enter_context(server)
                except RuntimeError as reason:
                    print(f"{subject} is left out: {reason}")
        yield servers


@contextmanager
def _plain_postgres() -> Iterator[str]:
    """The URL of a PostgreSQL that syncs each commit, with what Aegra's migrations ask of one.

    They take no password with a percent sign, and want `uuid-ossp`, which the wheel's PostgreSQL lacks: the one
    function of it that they use stands in for it.
    """
    with TemporaryDirectory(prefix="bench-") as folder:
        extensions = Path(folder) / "extension"
        extensions.mkdir()
        (extensions / "uuid-ossp.control").write_text("default_version = '1'\n")
        (extensions / "uuid-ossp--1.sql").write_text(_UUIDS)
        for place in (Path(folder), extensions):
            place.chmod(0o755)  # the server has an account of its own
        with postgres(extension_control_path=f"{folder}:$system") as url:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("CREATE ROLE aegra LOGIN SUPERUSER PASSWORD 'aegra'")
            yield f"postgresql://aegra:aegra@{url.rpartition('@')[2]}"
