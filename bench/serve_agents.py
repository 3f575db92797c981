"""A server of agents, in a process of its own: `python -m bench.serve_agents SUBJECT MODEL FOLDER --store URL`.

Each is started as its own command line starts it, without reloading. It prints a line and ends as `bench.serve` does.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import socket
import sys
import threading
import time
import urllib.request
from importlib import import_module
from pathlib import Path
from typing import Final, TextIO

GRAPH: Final = "tutor"
_PLACE: Final = f"{Path(__file__).parent / 'agent_graph.py'}:graph"
_PATIENCE_S: Final = 60.0


def _aegra(port: int, folder: Path, store: str) -> None:
    import uvicorn

    config = folder / "aegra.json"
    config.write_text(json.dumps({"graphs": {GRAPH: _PLACE}}))
    os.environ |= {"AEGRA_CONFIG": str(config), "DATABASE_URL": store, "LOG_LEVEL": "ERROR", "PORT": str(port)}
    os.chdir(folder)
    uvicorn.run("aegra_api.main:app", host="127.0.0.1", port=port, log_level="error", access_log=False)


def _langgraph(port: int, folder: Path, store: str) -> None:
    serve = import_module("langgraph_api.cli").run_server  # what its command calls; installed in its own environment
    os.chdir(folder)  # where it keeps what it has in memory, when it ends
    os.environ |= {"LANGSMITH_TRACING": "false", "LOG_LEVEL": "ERROR"}
    serve("127.0.0.1", port, graphs={GRAPH: _PLACE}, n_jobs_per_worker=10, server_level="ERROR")


SUBJECTS: Final = {"aegra": _aegra, "langgraph": _langgraph}


_ALIVE: Final = {"aegra": "health", "langgraph": "ok"}


def _tell(url: str, port: int, speak: TextIO) -> None:
    """Says when it listens, and ends the process with its standard input."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5)
            break
        except OSError:
            time.sleep(0.05)
    print(json.dumps({"port": port, "headers": {}}), file=speak, flush=True)
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    """Serves until the standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m bench.serve_agents")
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--store", default="", help="URL of Aegra's PostgreSQL")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent))  # the graph imports the model, wherever this stands then
    os.environ["BENCH_MODEL"] = options.model
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    speak, sys.stdout = sys.stdout, io.StringIO()  # they print banners
    url = f"http://127.0.0.1:{port}/{_ALIVE[options.subject]}"
    threading.Thread(target=_tell, args=(url, port, speak), daemon=True).start()
    SUBJECTS[options.subject](port, options.folder, options.store)


if __name__ == "__main__":
    main()
