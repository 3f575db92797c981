"""CONTRIBUTING.md and docs/architecture.md name what there is: every path, room, route and error."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from starlette.routing import Route

from api.errors import STATUS, status_of
from histories import STORES
from histories import errors as history_errors
from histories.base import HistoryError
from histories.memory import MemoryStore
from server import create_app
from settings import Settings
from tests.echo_model import EchoModel
from tests.live_server import langserve_warns
from tests.project.test_frame import MODULES, ROOT, product_files, tree_of
from tests.stores import KINDS
from turns import errors as turn_errors
from turns.errors import ChainError

pytestmark = langserve_warns
HOW_TO = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
HOUSE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
_PATH = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|md|toml|js)|(?:[\w.-]+/)+)`")


def section(page: str, title: str) -> str:
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return str(text)


def cells(text: str) -> list[list[str]]:
    """The rows of the tables of a text, without their heads."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    rules = [number for number, row in enumerate(rows) if set("".join(row)) <= {"-"}]
    return [row for number, row in enumerate(rows) if number not in rules and number + 1 not in rules]


def names(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("page", [HOW_TO, HOUSE], ids=["contributing", "architecture"])
def test_every_path_that_is_named_exists(page: str) -> None:
    paths = _PATH.findall(page)
    assert len(paths) > 30
    rooms = [ROOT, *(ROOT / room for room in ("api", "chains", "histories"))]  # a room's row names what is in it
    for path in paths:
        assert any((room / path).exists() for room in rooms), path


@pytest.mark.parametrize(("owner", "name"), re.findall(r"`(\w+)` (?:of|in) `((?:\w+/)*\w+\.py)`", HOW_TO))
def test_every_name_that_is_said_to_be_in_a_file_is_there(owner: str, name: str) -> None:
    assert re.search(rf"\b{owner}\b", (ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["chain", "store", "route", "setting", "error", "credential"])
def test_each_kind_of_change_says_what_it_touches(kind: str) -> None:
    assert _PATH.findall(section(HOW_TO, f"Add an? {kind}"))


def test_every_room_has_its_row() -> None:
    rooms = {path.relative_to(ROOT).parts[0] for path in product_files()} | {"web", "tests", "bench", "docs", "deploy"}
    rows = [room.rstrip("/") for row in cells(section(HOUSE, "Rooms")) for room in names(row[0])]
    assert sorted(rows) == sorted(rooms)


def test_a_word_of_the_glossary_has_one_meaning() -> None:
    words = [word for row in cells(section(HOUSE, "Glossary")) for word in row[0].split(", ")]
    assert len(words) == len(set(words)) > 20


def test_every_route_stands_at_its_module(tmp_path: Path) -> None:
    found = defaultdict[str, set[str]](set)
    app = create_app(Settings(data_dir=tmp_path), model=EchoModel(), store=MemoryStore(), chains=[])
    for route in app.router.routes:
        assert isinstance(route, Route)
        if route.path != "/openapi.json" and (route.path == "/" or not route.path.endswith("/")):
            module = sys.modules[route.endpoint.__module__]
            found[str(Path(module.__file__ or "").relative_to(ROOT))].add(route.path)
    told = {names(row[1])[0]: set(names(row[0])) for row in cells(section(HOUSE, "Routes"))}
    assert told == found


def test_every_store_is_in_the_conformance_suite_and_has_tests_of_its_own() -> None:
    assert {"postgres" if scheme == "postgresql" else scheme for scheme in STORES} - {"rediss"} == set(KINDS)
    folders = {path.parent.name for path in (ROOT / "histories").glob("*/store.py")}
    assert folders <= {path.parent.name for path in (ROOT / "tests" / "histories").glob("*/test_*.py")}
    assert {module.split(".")[1] for module, _ in STORES.values()} == folders | {"memory"}


def errors_of_the_tree() -> dict[str, str]:
    """Each public exception class of the product, and its file."""
    bases = {"Exception", "ValueError", "RuntimeError", "OSError", "TimeoutError"}
    classes = {
        node.name: ({ast.unparse(base).rpartition(".")[2] for base in node.bases}, module)
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.ClassDef)
    }
    while new := {name for name, (own, _) in classes.items() if own & bases} - bases:
        bases |= new
    return {name: classes[name][1] for name in bases & classes.keys() if not name.startswith("_")}


TOLD = {name: (names(row[1])[0], row[2]) for row in cells(section(HOW_TO, "Add an error")) for name in names(row[0])}


def test_every_error_has_its_row() -> None:
    there = {name: f"{module.replace('.', '/')}.py" for name, module in errors_of_the_tree().items()}
    assert {name: file for name, (file, _) in TOLD.items()} == there


def test_every_error_has_the_status_of_its_row() -> None:
    room = [*vars(history_errors).values(), *vars(turn_errors).values(), *STATUS]
    kinds = {one for one in room if isinstance(one, type) and issubclass(one, (HistoryError, ChainError))}
    for kind in kinds | STATUS.keys():
        said = TOLD[kind.__name__][1]
        if said.isdecimal():
            assert status_of(kind.__new__(kind)) == int(said), kind
        else:
            assert kind.__name__ in ("HistoryError", "ChainError", "ChainFailed", "RecordedFailure"), kind
