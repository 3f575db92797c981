"""A copy of the data folder, taken while people talk, is a backup: docs/operate.md says how."""

from __future__ import annotations

import io
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from histories.files.check import check_main
from tests.calls import call, said
from tests.echo_model import EchoModel
from tests.live_server import Here, langserve_warns, serve_here, wait_for

pytestmark = langserve_warns
SESSIONS = [f"s{number}" for number in range(6)]


@contextmanager
def talking(server: Here) -> Iterator[list[tuple[str, str]]]:
    """Somebody talks in each session, until the end of the block; gives what was acknowledged, as it grows."""
    acknowledged, over = list[tuple[str, str]](), threading.Event()

    def talk(session: str) -> None:
        with server.client() as client:
            number = 0
            while not over.is_set():
                text, number = f"{session} said {number}", number + 1
                if call(client, text, session, way="stream" if number % 2 else "invoke").status_code == 200:
                    acknowledged.append((session, text))

    threads = [threading.Thread(target=talk, args=(session,)) for session in SESSIONS]
    for thread in threads:
        thread.start()
    try:
        yield acknowledged
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_copy_taken_under_load_restores_all_that_was_acknowledged_before_it_began(tmp_path: Path) -> None:
    there = tmp_path / "restored"
    there.mkdir()
    with serve_here(tmp_path, model=EchoModel()) as server, talking(server) as acknowledged:
        with server.client() as client:
            assert client.get("/sessions?q=said").status_code == 200  # so that there is an index
        wait_for(lambda: len(acknowledged) >= 30, "some turns")
        before = list(acknowledged)
        copied = subprocess.run(["cp", "-a", server.data_dir, there / "data"], capture_output=True, text=True)
        vanished = [line for line in copied.stderr.splitlines() if "No such file or directory" not in line]
        assert vanished == [], "cp may tell of files that were gone meanwhile, and of nothing else"
        wait_for(lambda: len(acknowledged) >= len(before) + 10, "more turns")
    kept = defaultdict[str, list[str]](list)
    with serve_here(there, model=EchoModel()) as restored, restored.client() as client:
        listed = client.get("/sessions").json()["sessions"]
        assert sorted(session["session_id"] for session in listed) == SESSIONS
        for session in SESSIONS:
            assert said(call(client, "and on we go", session)).count("and on we go") == 1
            turns = client.get(f"/sessions/{session}/turns?limit=200").json()["turns"]
            kept[session] = [turn["input"][0]["data"]["content"] for turn in turns if turn["status"] == "complete"]
        for session in SESSIONS:
            told = [text for its, text in before if its == session]
            assert kept[session][: len(told)] == told
        assert {one["session_id"] for one in client.get("/sessions?q=said").json()["sessions"]} == set(SESSIONS)
    found = io.StringIO()
    assert check_main(str(there / "data" / "histories"), False, found) == 0, found.getvalue()
