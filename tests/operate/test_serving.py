"""`server.py` as a process: how it starts, how it stops, and several workers on one data folder."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from histories.base import TurnStatus
from histories.files.store import FileStore
from server import main
from tests.calls import STREAMS, call, error_of, events_of, said, text_of_events
from tests.live_server import ROOT, Process, copy_of_the_tree, launch, start, wait_for
from tests.openai_stub import OpenAIStub
from tests.quick import tries

SERVER = ROOT / "server.py"


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


# --- starting


def one_line(output: str) -> str:
    """The one line that a start is refused with."""
    lines = [line for line in output.splitlines() if not line.startswith("Model: ")]
    assert len(lines) == 1, output
    assert lines[0].startswith("recollect: ")
    return lines[0]


def refusal(folder: Path, server: Path = SERVER, **environment: str) -> str:
    nowhere = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    with launch(folder, server=server, errors=None, **{**nowhere, **environment}) as process:
        assert process.wait_exit() == 2, process.output
    return one_line(process.output)


def test_an_unknown_name_ends_the_start_in_one_line(tmp_path: Path) -> None:
    assert "did you mean RECOLLECT_DATA_DIR?" in refusal(tmp_path, RECOLLECT_DATADIR="x")


@pytest.fixture
def main_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., str]:
    """What the same program says in this process, which takes no start."""

    def run(**environment: str) -> str:
        environment = {"OPENAI_BASE_URL": "", "RECOLLECT_PORT": "0", "RECOLLECT_DATA_DIR": str(tmp_path)} | environment
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert main([]) == 2  # not what pytest was told
        said = capsys.readouterr()
        return one_line(said.out + said.err)

    return run


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RECOLLECT_PORT", "99999", "RECOLLECT_PORT"),
        ("RECOLLECT_DATA_DIR", "/dev/null/x", "RECOLLECT_DATA_DIR /dev/null/x: Not a directory"),
        ("RECOLLECT_HOST", "no.such.host.invalid", "no.such.host.invalid"),
        ("RECOLLECT_MODEL", "gpt-x", "OPENAI_API_KEY"),
    ],
)
def test_a_setting_that_can_not_be_used_ends_the_start_in_one_line(
    main_says: Callable[..., str], name: str, value: str, words: str
) -> None:
    assert words in main_says(**{name: value})


def test_a_data_folder_that_is_a_file_is_left_as_it_was(main_says: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    path.chmod(0o644)
    assert "RECOLLECT_DATA_DIR is no folder" in main_says(RECOLLECT_DATA_DIR=str(path))
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_store_that_can_not_be_used_is_told_at_the_start(stub: OpenAIStub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    url = f"file:{tmp_path / 'file' / 'histories'}"
    with start(tmp_path, OPENAI_BASE_URL=stub.base_url, RECOLLECT_HISTORY_URL=url) as process:
        process.wait_for_line("(RECOLLECT_HISTORY_URL can't be used yet, and turns are refused): ")
        assert "Traceback" not in process.output


def test_a_port_that_is_taken_ends_the_start_in_one_line(main_says: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port}" in main_says(RECOLLECT_PORT=port)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_chain_that_can_not_be_imported_is_told_in_one_line(tmp_path: Path, workers: str) -> None:
    server = copy_of_the_tree(tmp_path / "tree")
    (server.parent / "chains" / "mine.py").write_text("import no_such_module\n")
    line = refusal(tmp_path / "data", server, RECOLLECT_WORKERS=workers)
    assert "chains/mine.py" in line
    assert "no_such_module" in line


@pytest.fixture(scope="module")
def fresh(stub: OpenAIStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server that was started for the first time, with no key."""
    with start(tmp_path_factory.mktemp("fresh"), OPENAI_BASE_URL=stub.base_url) as process:
        yield process


def test_the_first_start_prints_a_link_that_signs_in_once(fresh: Process) -> None:
    link = fresh.wait_for_line(r"(http://\S+/login\?token=\S+)")
    with httpx.Client() as browser:
        shown, token = browser.get(link), link.partition("token=")[2]
        assert "signs this browser in as" in shown.text
        entered = browser.post(f"{fresh.url}/login", data={"token": token}, headers={"Origin": fresh.url})
        assert entered.status_code == 303
        assert browser.get(f"{fresh.url}/me").json() == {"user_id": "local"}
    audit = [json.loads(line) for line in (fresh.data_dir / "audit.jsonl").read_text().splitlines()]
    made = [(line["act"], line["what"]["user"]) for line in audit if line["from"] == "server.py"]
    assert made == [("key.create", "local"), ("link.create", "local")]
    with httpx.Client() as another:
        assert another.get(link).status_code == 401
        assert another.get(f"{fresh.url}/me").status_code == 401


def test_a_start_says_which_model_answers_and_then_logs_requests_alone(fresh: Process, stub: OpenAIStub) -> None:
    first, chains, second, third, *rest = fresh.output.splitlines()
    assert chains == "Chains: /agent, /chat, /tutor"
    assert first == f"Model: gpt-5.4-mini at {stub.base_url}"
    assert second == f"Recollect is at {fresh.url}"
    assert third.startswith("Sign in, once, within ten minutes: ")
    assert all(re.match(r"\S+Z info +(request|audit) ", line) for line in rest)


def test_a_server_with_a_model_elsewhere_is_ready_soon_and_is_small(fresh: Process) -> None:
    process = psutil.Process(fresh.process.pid)
    with fresh.client() as client:
        for way in ("invoke", "batch", *STREAMS):
            call(client, "one", "small", way=way)
    used = process.cpu_times()
    assert used.user + used.system < 5  # of a processor, however many tests share it; 3 s until it is ready
    assert process.memory_info().rss < 160_000_000


# --- stopping


class Said:
    """What came of a stream that was under way."""

    def __init__(self, process: Process, stub: OpenAIStub, folder: Path) -> None:
        self.process, self.stub, self.folder = process, stub, folder
        self.way = "stream"
        self.gate = stub.pause_after(2)
        self._pool = ThreadPoolExecutor(1)
        self._client = process.client()
        self.answer: Future[httpx.Response] = self._pool.submit(call, self._client, "one", "s", way=self.way)
        self.gate.wait()

    def close(self) -> None:
        self.gate.release()
        self.stub.gate = None
        self._pool.shutdown()
        self._client.close()

    def wait_closed(self) -> None:
        """Returns when no one new is let in."""
        url = httpx.URL(self.process.url)

        def refused() -> bool:
            with socket.socket() as one:
                return one.connect_ex((url.host, url.port)) != 0

        wait_for(refused, "the end of listening")


@pytest.fixture
def limit() -> str:
    return "30"


@pytest.fixture
def streaming(stub: OpenAIStub, tmp_path: Path, limit: str) -> Iterator[Said]:
    """A server, and a stream of it that has said two words and is held there."""
    with start(tmp_path, OPENAI_BASE_URL=stub.base_url, RECOLLECT_SHUTDOWN_S=limit) as process:
        said = Said(process, stub, tmp_path)
        try:
            yield said
        finally:
            said.close()


def kept(data_dir: Path, session: str = "s") -> list[tuple[TurnStatus, str]]:
    """The turns of a session as they are on the disk: status and reply."""

    async def read() -> list[tuple[TurnStatus, str]]:
        turns = await FileStore(data_dir / "histories").history("alice", session).turns()
        return [(turn.status, "".join(str(message.text) for message in turn.output)) for turn in turns.items]

    return asyncio.run(read())


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_server_that_is_stopped_lets_its_streams_end(streaming: Said, sig: signal.Signals) -> None:
    if signal.getsignal(sig) is signal.SIG_IGN:
        pytest.skip("who runs the tests has this signal ignored, as nohup does, and so the server leaves it so")
    streaming.process.process.send_signal(sig)
    streaming.wait_closed()
    streaming.gate.release()
    assert said(streaming.answer.result(60), "stream").endswith("1 user messages: one")
    assert streaming.process.wait_exit() == 0
    assert "told to stop: 1 turns have 30 seconds to end" in streaming.process.output
    assert "Traceback" not in streaming.process.output
    assert [status for status, _ in kept(streaming.process.data_dir)] == [TurnStatus.COMPLETE]


@pytest.mark.parametrize("limit", ["0.2"])
def test_a_stream_that_does_not_end_in_time_is_interrupted_and_kept(streaming: Said) -> None:
    streaming.process.terminate()
    answer = streaming.answer.result(60)
    status, message = error_of(answer)
    assert status == 503
    assert "shutting down" in message
    assert text_of_events(events_of(answer.text), "stream") == "You said: "
    assert streaming.process.wait_exit() == 0
    assert "Traceback" not in streaming.process.output
    assert kept(streaming.process.data_dir) == [(TurnStatus.INTERRUPTED, "You said: ")]


@pytest.mark.parametrize("limit", ["100"])
def test_a_second_signal_ends_a_stream_at_once_and_keeps_it(streaming: Said) -> None:
    streaming.process.terminate()
    streaming.wait_closed()
    streaming.process.terminate()
    assert streaming.process.wait_exit(30) == 0
    assert "Traceback" not in streaming.process.output
    assert kept(streaming.process.data_dir) == [(TurnStatus.INTERRUPTED, "You said: ")]


# --- workers


@pytest.fixture(scope="module")
def four(stub: OpenAIStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("four")
    with start(folder, OPENAI_BASE_URL=stub.base_url, RECOLLECT_WORKERS="4") as process:
        yield process
        process.terminate()
        assert process.wait_exit() == 0, "a supervisor that is stopped stops its workers, and ends well"
        assert "Traceback" not in process.output


def ports_to(process: int, port: int | None) -> set[int]:
    """The ports from which a process talks to a port of this machine."""
    connections = psutil.Process(process).net_connections()
    return {one.laddr.port for one in connections if one.status != "LISTEN" and one.raddr.port == port}


def workers_of(process: Process) -> set[int]:
    children = psutil.Process(process.process.pid).children()
    return {child.pid for child in children if "spawn_main" in " ".join(child.cmdline())}


def workers_of_model(process: Process, stub: OpenAIStub) -> set[int]:
    """The workers that have talked to the model, and keep their connections to it for a while."""
    return {pid for pid in workers_of(process) if ports_to(pid, httpx.URL(stub.base_url).port)}


def worker_of_this_process(process: Process) -> int:
    """The worker that answers this process, which has one connection."""
    (mine,) = ports_to(os.getpid(), httpx.URL(process.url).port)
    (worker,) = (pid for pid in workers_of(process) if ports_to(pid, mine))
    return worker


async def sixteen_at_once(server: Process, session: str) -> None:
    body: dict[str, Any] = {"config": {"configurable": {"session_id": session}}}

    async def ask(n: int) -> list[str]:
        async with server.async_client() as client:
            answer = await client.post("/chat/invoke", json={"input": {"input": f"n{n}"}, **body})
            return said(answer).partition("user messages: ")[2].split(" | ")

    seen = sorted(await asyncio.gather(*(ask(n) for n in range(16))), key=len)
    assert [len(texts) for texts in seen] == list(range(1, 17))
    assert all(longer[: len(shorter)] == shorter for shorter, longer in pairwise(seen))


async def test_several_workers_serve_one_session_in_order(four: Process, stub: OpenAIStub) -> None:
    for attempt in range(50):  # at first, not all of them are there yet
        await sixteen_at_once(four, f"shared {attempt}")
        if len(workers_of_model(four, stub)) > 1:
            return
    raise AssertionError("one worker does it all")


async def test_a_turn_is_stopped_from_another_process(four: Process, stub: OpenAIStub) -> None:
    gate = stub.pause_after(2)
    with four.client() as client:
        streaming = asyncio.create_task(asyncio.to_thread(call, client, "one", "stopped", way="stream"))
        await asyncio.to_thread(gate.wait)
        store = FileStore(four.data_dir / "histories")
        assert await store.history("alice", "stopped").stop()
        answer = await streaming
    gate.release()
    stub.gate = None
    assert said(answer, "stream") == "You said: "
    assert await asyncio.to_thread(kept, four.data_dir, "stopped") == [(TurnStatus.INTERRUPTED, "You said: ")]


def test_a_worker_that_is_killed_is_replaced_and_its_turn_is_interrupted(four: Process, stub: OpenAIStub) -> None:
    wait_for(lambda: len(workers_of(four)) == 4, "four workers")
    before = workers_of(four)
    gate = stub.pause_after(2)
    with four.client() as client, ThreadPoolExecutor(1) as pool:
        streaming = pool.submit(call, client, "one", "killed", way="stream")
        gate.wait()
        os.kill(worker_of_this_process(four), signal.SIGKILL)
        with pytest.raises(httpx.RemoteProtocolError):
            streaming.result(60)
    gate.release()
    stub.gate = None
    with four.client() as client:
        assert said(call(client, "two", "killed")).partition("user messages: ")[2] in ("one | two", "two")
    (status, _), (after, _) = sorted(kept(four.data_dir, "killed"), key=lambda turn: turn[0] is TurnStatus.COMPLETE)
    assert status in (TurnStatus.INTERRUPTED, TurnStatus.FAILED)
    assert after is TurnStatus.COMPLETE
    wait_for(lambda: len(workers_of(four) - before) == 1, "another worker")
    assert len(workers_of(four)) == 4
    assert "a worker died" in four.output


def test_workers_end_with_a_supervisor_that_is_killed(stub: OpenAIStub, tmp_path: Path) -> None:
    with start(tmp_path, OPENAI_BASE_URL=stub.base_url, RECOLLECT_WORKERS="2") as process:
        workers = [psutil.Process(pid) for pid in workers_of(process)]
        assert workers
        process.kill()
        gone, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive
        assert len(gone) == len(workers)


# --- the embedded model


def test_with_no_key_at_all_a_real_model_answers_and_remembers(tmp_path: Path) -> None:
    for number, one in enumerate(tries(12)):
        with start(tmp_path / str(number)) as process:
            assert "embedded (a demonstration" in process.output
            used = psutil.Process(process.process.pid).cpu_times()
            one.took = used.user + used.system  # of a processor; 8 s until it is ready, when it has two
            with process.client() as client:
                answer = call(client, "My name is Ada. Say hello.", "embedded", chain="tutor")
                assert len(said(answer)) > 3
                assert said(call(client, "What is my name?", "embedded", chain="chat", way="stream"), "stream")
                turns = client.get("/sessions/embedded/turns").json()["turns"]
            assert [turn["status"] for turn in turns] == ["complete", "complete"]
            process.terminate()
            assert process.wait_exit() == 0
        assert "Traceback" not in process.output
