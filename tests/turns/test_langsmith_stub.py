"""The collector understands what LangSmith's client posts: proved with a plain chain in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.langsmith_stub import LangSmithStub
from tests.openai_stub import OpenAIStub

ROOT = Path(__file__).parents[2]

CHAIN = """
import sys
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{input}")])
chain = prompt | ChatOpenAI(base_url=sys.argv[1], api_key="none", model="stub", max_retries=0)
for text in sys.argv[2:]:
    try:
        chain.with_config(run_name="a plain chain").invoke({"input": text})
    except Exception as error:
        print(type(error).__name__)
from langchain_core.tracers.langchain import wait_for_all_tracers
wait_for_all_tracers()
"""


def run_chain(model: OpenAIStub, tracing: Mapping[str, str], *texts: str) -> str:
    """Runs it with each of the texts; gives the names of the errors."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("LANGSMITH", "LANGCHAIN"))}
    command = [sys.executable, "-c", CHAIN, model.base_url, *texts]
    ended = subprocess.run(command, cwd=ROOT, env={**ours, **tracing}, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.parametrize("compression", [True, False])
def test_it_sees_the_runs_with_what_went_in_and_out_and_their_errors(compression: bool) -> None:
    with OpenAIStub() as model, LangSmithStub(compression=compression) as langsmith:
        assert run_chain(model, langsmith.environment(), "hello", "[[fail 500]]") == "OpenAIAPIError"
        chain = langsmith.wait_for(lambda run: run.get("name") == "a plain chain" and run.get("outputs"))
        llm = langsmith.wait_for(lambda run: run.get("name") == "ChatOpenAI" and run.get("outputs"))
        failed = langsmith.wait_for(lambda run: run.get("name") == "ChatOpenAI" and run.get("error"))
    assert chain["inputs"] == {"input": "hello"}
    assert [message["kwargs"]["content"] for message in llm["inputs"]["messages"][0]] == ["Be brief.", "hello"]
    assert "You said: hello" in str(llm["outputs"])
    assert llm["parent_run_id"] == chain["id"]
    assert "500" in failed["error"]
    assert langsmith.api_keys <= {"a-key-for-tests", ""}


def test_it_sees_nothing_unless_tracing_is_on() -> None:
    with OpenAIStub() as model, LangSmithStub() as langsmith:
        run_chain(model, {**langsmith.environment(), "LANGSMITH_TRACING": ""}, "hello")
        assert langsmith.calls == []
