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
try:
    chain.with_config(run_name="a plain chain").invoke({"input": sys.argv[2]})
except Exception as error:
    print(type(error).__name__)
from langchain_core.tracers.langchain import wait_for_all_tracers
wait_for_all_tracers()
"""


def run_chain(model: OpenAIStub, text: str, tracing: Mapping[str, str]) -> str:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("LANGSMITH", "LANGCHAIN"))}
    command = [sys.executable, "-c", CHAIN, model.base_url, text]
    ended = subprocess.run(command, cwd=ROOT, env={**ours, **tracing}, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.parametrize("compression", [True, False])
def test_it_sees_the_runs_with_what_went_in_and_out(compression: bool) -> None:
    with OpenAIStub() as model, LangSmithStub(compression=compression) as langsmith:
        run_chain(model, "hello", langsmith.environment())
        chain = langsmith.wait_for(lambda run: run.get("name") == "a plain chain" and run.get("outputs"))
        llm = langsmith.wait_for(lambda run: run.get("name") == "ChatOpenAI" and run.get("outputs"))
    assert chain["inputs"] == {"input": "hello"}
    assert [message["kwargs"]["content"] for message in llm["inputs"]["messages"][0]] == ["Be brief.", "hello"]
    assert "You said: hello" in str(llm["outputs"])
    assert llm["parent_run_id"] == chain["id"]
    assert langsmith.api_keys <= {"a-key-for-tests", ""}


def test_it_sees_the_error_of_a_run() -> None:
    with OpenAIStub() as model, LangSmithStub() as langsmith:
        assert run_chain(model, "[[fail 500]]", langsmith.environment()) == "OpenAIAPIError"
        assert "500" in langsmith.wait_for(lambda run: run.get("name") == "ChatOpenAI" and run.get("error"))["error"]


def test_it_sees_nothing_unless_tracing_is_on() -> None:
    with OpenAIStub() as model, LangSmithStub() as langsmith:
        run_chain(model, "hello", {**langsmith.environment(), "LANGSMITH_TRACING": ""})
        assert langsmith.calls == []
