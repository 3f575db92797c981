"""The README is true: what it names is there, and what it shows runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

import admin
from api.errors import STATUS
from settings import Settings, variable
from tests.live_server import ROOT, Process, start
from tests.openai_stub import OpenAIStub

README = (ROOT / "README.md").read_text(encoding="utf-8")
CHAINS = (ROOT / "docs" / "chains.md").read_text(encoding="utf-8")
BLOCKS = [(kind, text) for kind, text in re.findall(r"```(\w+)\n(.*?)```", README + CHAINS, re.DOTALL)]


def block(kind: str, having: str) -> str:
    found = [text for its_kind, text in BLOCKS if its_kind == kind and having in text]
    assert len(found) == 1, f"one {kind} block with {having!r}, not {len(found)}"
    return str(found[0])


def test_every_setting_stands_in_the_readme_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", README, re.MULTILINE))
    assert set(rows) == {variable(field) for field in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        default = field.default
        if default in (None, ""):
            assert rows[variable(name)] == "–", name
        else:
            said = rows[variable(name)].strip("`").removeprefix("./")
            assert said == (
                str(default).lower()
                if isinstance(default, bool)
                else f"{default:g}"
                if isinstance(default, float)
                else str(default)
            ), name


def test_every_command_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", README))
    assert {"serve", "test", "check", "bench", "lock"} <= named <= targets
    for command in re.findall(rf"`(?:admin\.py )?((?:{'|'.join(admin_commands())})(?: [^`]*)?)`", README):
        words = [word for word in command.split() if word.islower() and not word.startswith("-")]
        shown = admin_help(*words)
        for option in re.findall(r"--\w+", command):
            assert option in shown, command


def admin_help(*words: str) -> str:
    """What a command of the operators says of itself."""
    with redirect_stdout(StringIO()) as told, pytest.raises(SystemExit) as ended:
        admin.main([*words, "--help"])
    assert ended.value.code == 0, words
    return told.getvalue()


def admin_commands() -> list[str]:
    """The longest first: one may begin as another one does."""
    return sorted(re.findall(r"^    ([a-z-]+)(?= |$)", admin_help(), re.MULTILINE), key=len, reverse=True)


def test_every_command_of_the_operators_stands_in_the_readme() -> None:
    commands = admin_commands()
    assert len(commands) > 10
    assert not [command for command in commands if not re.search(rf"`(?:admin\.py )?{command}\b", README)]


def test_every_status_of_the_readme_is_one_that_is_given() -> None:
    source = "".join(path.read_text() for room in ("api", "auth") for path in (ROOT / room).rglob("*.py"))
    for status in re.findall(r"^\| (\d{3}) \|", README, re.MULTILINE):
        assert status in source


def test_every_status_that_the_edge_gives_stands_in_the_readme_once() -> None:
    told = re.findall(r"^\| (\d{3}) \|", README, re.MULTILINE)
    assert told == sorted(set(told))
    assert {str(status) for status in STATUS.values()} <= set(told)


def test_every_file_that_a_page_links_to_exists() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_found_from_the_readme() -> None:
    assert not [page.name for page in (ROOT / "docs").glob("*.md") if f"docs/{page.name}" not in README]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The tree with the README's own chain in it, and a model that repeats what it has heard."""
    tree = tmp_path_factory.mktemp("readme") / "tree"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "data", "node_modules", "tests", "bench", "docs")
    shutil.copytree(ROOT, tree, ignore=ignored)
    chain = block("python", "# chains/pirate.py")
    assert len(chain.splitlines()) <= 24  # 20 and the blank lines and the file's name
    for name in ("pirate", "helper", "library", "shout"):
        (tree / "chains" / f"{name}.py").write_text(block("python", f"# chains/{name}.py"))
    with OpenAIStub() as stub, start(tree / "run", server=tree / "server.py", OPENAI_BASE_URL=stub.base_url) as server:
        yield server


def run(script: list[str], server: Process, folder: Path) -> str:
    done = subprocess.run(script, cwd=folder, capture_output=True, text=True, timeout=100, env={**os.environ})
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def here(text: str, server: Process) -> str:
    """A snippet, talking to this server."""
    return text.replace("http://127.0.0.1:8000", server.url)


def test_the_first_curl_and_the_stream_remember(served: Process, tmp_path: Path) -> None:
    first = here(block("sh", "/tutor/invoke"), served).split("curl", 1)[1]
    stream = here(block("sh", "/chat/stream"), served)
    key = f"KEY={served.key('alice')}\n"
    assert "My name is Ada" in run(["bash", "-ec", f"{key}curl{first}"], served, tmp_path)
    said = run(["bash", "-ec", key + stream], served, tmp_path)
    assert "event: end" in said
    assert "Ada" in "".join(re.findall(r'^data: "(.*)"', said, re.MULTILINE))


def test_the_key_of_the_first_screen_is_the_last_line(tmp_path: Path) -> None:
    line = block("sh", "/tutor/invoke").splitlines()[0].replace(".venv/bin/python", sys.executable)
    environment = {**os.environ, "RECOLLECT_DATA_DIR": str(tmp_path)}
    script = f'{line}\nprintf %s "$KEY"'
    key = subprocess.run(["bash", "-ec", script], cwd=ROOT, env=environment, capture_output=True, text=True).stdout
    assert re.fullmatch(r"rk_[\w-]{43}", key)


def test_the_python_client_remembers(served: Process, tmp_path: Path) -> None:
    script = f"KEY = {served.key('bob')!r}\n" + here(block("python", "RemoteRunnable"), served)
    said = run([sys.executable, "-W", "ignore", "-c", script], served, tmp_path)
    assert "Ada" in said.splitlines()[-1]


def test_the_readmes_own_chain_is_served_and_goes_on_with_anothers_session(served: Process) -> None:
    config = {"configurable": {"session_id": "voyage"}}
    with served.client("carol") as carol:
        carol.post("/chat/invoke", json={"input": {"input": "I am Ada"}, "config": config}).raise_for_status()
        reply = carol.post("/pirate/invoke", json={"input": {"input": "Who am I?"}, "config": config})
    assert "I am Ada" in reply.json()["output"]["content"]


def test_the_readmes_chains_of_every_shape_are_served(served: Process) -> None:
    config = {"configurable": {"session_id": "shapes"}}
    with served.client("dora") as dora:
        helped = dora.post("/helper/invoke", json={"input": {"messages": ["hi [[tool weather]]"]}, "config": config})
        assert [message["type"] for message in helped.json()["output"]["messages"]][:2] == ["human", "ai"]
        found = dora.post("/library/invoke", json={"input": {"input": "cosine"}, "config": config}).json()["output"]
        assert found.keys() == {"answer", "context"}
        assert dora.post("/shout/invoke", json={"input": "hi"}).json()["output"] == "HI"
        turns = dora.get("/sessions/shapes/turns").json()["turns"]
    assert [turn["chain"] for turn in turns] == ["helper", "library"]
