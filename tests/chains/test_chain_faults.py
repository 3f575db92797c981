"""A chain that can't be served is told at the start: in one line that names the file and the fault, with status 2."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import admin
from tests.live_server import Process, launch
from tests.openai_stub import OpenAIStub

HEAD = """
import warnings
from contextlib import asynccontextmanager, contextmanager
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel
from typing_extensions import TypedDict
from chains import Chain

class Ask(BaseModel):
    input: str

class Said(TypedDict):
    input: str

def prompt(*parts):
    return ChatPromptTemplate.from_messages([*parts, ("human", "{input}")])

def graph(**options):
    made = StateGraph(MessagesState)
    made.add_node("say", lambda state: {})
    made.add_edge(START, "say")
    return made.compile(**options)

def raising(model):
    raise KeyError("MY_KEY")

def raising_lines(model):
    Ask(input=3)

def leaving(model):
    raise SystemExit("no licence")

async def raising_later(model):
    raise OSError("no such host")

@asynccontextmanager
async def raising_on_entry(model):
    raise ConnectionError("the pool can't be opened")
    yield

@contextmanager
def raising_in_with(model):
    raise ConnectionError("the file can't be opened")
    yield

@asynccontextmanager
async def of_nothing(model):
    yield None

def remembering(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RunnableWithMessageHistory(model, lambda session_id: None)

def by_pieces(inputs):
    yield "a"

PAST = MessagesPlaceholder("history")
KEYS = {"input_type": Ask, "input_messages_key": "input", "history_messages_key": "history"}
"""

FAULTS = {
    "late, and raises": ("build=raising, input_type=str, late=True", "build fails: KeyError: 'MY_KEY'"),
    "late, and no prompt for the past": ("build=lambda model: prompt() | model, late=True, **KEYS", "add it, or say"),
    "late, and of a coroutine": ("build=raising_later, input_type=str, late=True", "it can't be built late"),
    "build raises": ("build=raising, input_type=str", "build fails: KeyError: 'MY_KEY'"),
    "build raises several lines": ("build=raising_lines, input_type=str", "build fails: ValidationError: 1 validation"),
    "build exits": ("build=leaving, input_type=str", "build fails: SystemExit: no licence"),
    "an async build raises": ("build=raising_later, input_type=str", "build fails: OSError: no such host"),
    "a pool raises": ("build=raising_on_entry, input_type=str", "build fails: ConnectionError: the pool"),
    "a with raises": ("build=raising_in_with, input_type=str", "build fails: ConnectionError: the file"),
    "a pool of nothing": ("build=of_nothing, input_type=str", "build gives nothing: it has to return a Runnable"),
    "no runnable": ("build=lambda model: 3, input_type=str", "build gives a int: it has to return a Runnable"),
    "no return": ("build=lambda model: None, input_type=str", "build gives nothing: it has to return a Runnable"),
    "a second history": (
        "build=remembering, input_type=str",
        "it is a RunnableWithMessageHistory already",
    ),
    "a checkpointer": (
        "build=lambda model: graph(checkpointer=InMemorySaver()), input_type=dict, input_messages_key='messages'",
        "its graph has a checkpointer, a second history: compile it without one",
    ),
    "no placeholder": (
        "build=lambda model: prompt() | model, **KEYS",
        "its prompt has no MessagesPlaceholder('history'): add it, or say memory=False",
    ),
    "the history as text": (
        "build=lambda model: prompt(('system', '{history}')) | model, **KEYS",
        "its prompt takes {history} as text: use MessagesPlaceholder('history')",
    ),
    "the input as text, with no key for the past": (
        "build=lambda model: prompt() | model, input_type=Ask, input_messages_key='input'",
        "its prompt takes {input} as text: say a history_messages_key",
    ),
    "a key that the input has not": (
        "build=lambda model: model, input_type=Ask, input_messages_key='question'",
        "its input_messages_key is 'question', which its input_type has not (input)",
    ),
    "a key that a dictionary has not": (
        "build=lambda model: model, input_type=Said, input_messages_key='question'",
        "its input_messages_key is 'question', which its input_type has not (input)",
    ),
    "a variable that a dictionary has not": (
        "build=lambda model: prompt(('system', 'Speak {language}.'), PAST) | model, **{**KEYS, 'input_type': Said}",
        "its prompt wants {language}, which its input_type has not",
    ),
    "one key for both": (
        "build=lambda model: model, input_type=Ask, input_messages_key='input', history_messages_key='input'",
        "its input_messages_key and its history_messages_key are the same",
    ),
    "a variable that the input has not": (
        "build=lambda model: prompt(('system', 'Speak {language}.'), PAST) | model, **KEYS",
        "its prompt wants {language}, which its input_type has not",
    ),
    "a generator that is not async": (
        "build=lambda model: RunnableGenerator(by_pieces), input_type=str",
        "is a generator that is not async, which a server can't call: use async def",
    ),
    "a memory of another kind": ("build=lambda model: model, input_type=str, memory='all'", "its memory is 'all'"),
    "a recall of another kind": ("build=lambda model: model, input_type=str, recall='all'", "its recall is 'all'"),
    "the chat playground of messages": (
        "build=lambda model: model, input_type=str, playground='chat'",
        "the chat playground takes text alone",
    ),
}
WHOLE = {
    "a small name": ("chain = Chain(name='mine', build=str, input_type=str)", "call it CHAIN, not chain"),
    "no Chain": ("CHAIN = str", "CHAIN has to be a chains.Chain"),
    "a name that is taken": (
        "CHAIN = Chain(name='chat', build=lambda m: m, input_type=str)",
        "there is a chain of the name 'chat' already",
    ),
    "a name of ours": ("CHAIN = Chain(name='login', build=lambda m: m, input_type=str)", "can't be a chain's name"),
    "a module that is missing": ("import no_such_module", "can't be imported: ModuleNotFoundError"),
    "no Python": ("CHAIN = (", "can't be imported: SyntaxError"),
    "an argument that Chain has not": (
        "CHAIN = Chain(name='mine', input='str')",
        "can't be imported: TypeError: ",
    ),
    "an exit": ("raise SystemExit(3)", "can't be imported: SystemExit"),
}


def written(folder: Path, rest: str) -> Path:
    path = folder / "mine.py"
    path.write_text(HEAD + rest + "\n")
    return path


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, rest: str) -> str:
    """What `admin.py chains` says of a file that ends so."""
    path = written(folder, rest)
    monkeypatch.setenv("RECOLLECT_CHAINS", str(path))
    monkeypatch.setenv("RECOLLECT_DATA_DIR", str(folder / "data"))
    assert admin.main(["chains"]) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert str(path) in line
    assert told.out == ""
    return line


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_chain_is_one_line_that_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    how, told = FAULTS[name]
    assert told in refused(monkeypatch, capsys, tmp_path, f"CHAIN = Chain(name='mine', {how})")


@pytest.mark.parametrize("name", WHOLE)
def test_a_fault_of_a_file_is_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    rest, told = WHOLE[name]
    assert told in refused(monkeypatch, capsys, tmp_path, rest)


def test_a_folder_that_is_not_there_is_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECOLLECT_CHAINS", str(tmp_path / "nowhere"))
    monkeypatch.setenv("RECOLLECT_DATA_DIR", str(tmp_path / "data"))
    assert admin.main(["chains"]) == 2
    assert f"RECOLLECT_CHAINS: there is no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err


def test_without_a_memory_a_chain_needs_no_place_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = "CHAIN = Chain(name='mine', build=lambda model: prompt() | model, input_type=Ask, memory=False)"
    monkeypatch.setenv("RECOLLECT_CHAINS", str(written(tmp_path, chain)))
    monkeypatch.setenv("RECOLLECT_DATA_DIR", str(tmp_path / "data"))
    assert admin.main(["chains"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert ["/mine", "no memory", str(tmp_path / "mine.py")] in lines
    assert ["/chat", "remembers", "chains/chat.py"] in lines


def test_a_generator_that_can_not_be_streamed_is_doubtful(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = "CHAIN = Chain(name='mine', build=lambda model: RunnableLambda(by_pieces), input_type=str, output_type=str)"
    monkeypatch.setenv("RECOLLECT_CHAINS", str(written(tmp_path, chain)))
    monkeypatch.setenv("RECOLLECT_DATA_DIR", str(tmp_path / "data"))
    assert admin.main(["chains"]) == 0
    assert (
        "but: its step by_pieces is a generator that LangChain can't stream: use async def" in capsys.readouterr().out
    )


def serving(folder: Path, chain: Path, stub: OpenAIStub) -> AbstractContextManager[Process]:
    return launch(folder, OPENAI_API_KEY="none", OPENAI_BASE_URL=stub.base_url, RECOLLECT_CHAINS=str(chain))


def test_the_server_says_the_same_and_ends(tmp_path: Path) -> None:
    path = written(tmp_path, "CHAIN = Chain(name='mine', build=raising_on_entry, input_type=str)")
    with OpenAIStub() as stub, serving(tmp_path, path, stub) as process:
        assert process.wait_exit() == 2
    told = [line for line in process.output.splitlines() if "mine.py" in line]
    assert len(told) == 1
    assert "build fails" in told[0]
    assert "Traceback" not in process.output


def test_a_pool_is_open_while_the_server_runs_and_closed_at_its_end(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "@asynccontextmanager\nasync def build(model):\n    print('opened', flush=True)\n"
        "    yield RunnableLambda(lambda _: 'x')\n    print('closed', flush=True)\n"
        "CHAIN = Chain(name='mine', build=build, input_type=str, output_type=str)",
    )
    with OpenAIStub() as stub, serving(tmp_path, path, stub) as process, process.client() as client:
        config = {"configurable": {"session_id": "s"}}
        assert client.post("/mine/invoke", json={"input": "hi", "config": config}).json()["output"] == "x"
        assert "Chains: /agent, /chat, /mine, /tutor" in process.output
        assert process.output.split().count("opened") == 1
        assert "closed" not in process.output
    assert process.output.split().count("closed") == 1
