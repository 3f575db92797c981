"""Each guarantee stands in docs/guarantees.md, and a test names it as what it proves."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.proofs import GUARANTEES, proves

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")


@cache
def proofs() -> list[tuple[str, str]]:
    """(guarantee, test) of each `@proves` in the tree."""
    return list(_proofs())


def _proofs() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "proves":
                        yield from ((ast.literal_eval(one), node.name) for one in decorator.args)


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_guarantee_is_proved(guarantee: str) -> None:
    assert [test for proved, test in proofs() if proved == guarantee], f"no test is marked with @proves({guarantee!r})"


def test_what_proves_a_guarantee_is_a_test() -> None:
    assert not [name for _, name in proofs() if not name.startswith("test_")]


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_guarantee_says_what_it_rests_on_and_what_ends_it(guarantee: str) -> None:
    (section,) = re.findall(rf"^## {guarantee} (.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert "**Rests on**" in section
    assert "**Ends**" in section


def test_the_page_names_no_guarantee_that_there_is_not() -> None:
    assert tuple(re.findall(r"^## (G\d+) ", PAGE, re.MULTILINE)) == GUARANTEES


def test_every_file_that_the_page_names_is_there() -> None:
    for name in re.findall(r"`([\w/]+\.(?:py|md|sql))`|\]\(([^)#:]+)\)", PAGE):
        named = next(filter(None, name))
        assert (ROOT / named).exists() or (ROOT / "docs" / named).exists(), named


def test_a_guarantee_that_there_is_not_can_not_be_proved() -> None:
    for wrong in ((), ("G0",), ("G3", "G15")):
        with pytest.raises(ValueError, match="there are G1 to G14"):
            proves(*wrong)
