"""Finding the chains: in the folder `chains/`, and in the modules and folders that the operator names."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from langchain_core.language_models import BaseChatModel

from chains.chain import BadChain, Chain, in_one_line
from chains.checks import doubt_about
from turns.run import Turns

_HERE = Path(__file__).parent


def load_chains(others: str | None = None) -> list[Chain]:
    """All chains of this folder, and of `others` (modules, files and folders, with commas between), by name.

    Raises `BadChain` for one that can't be served.
    """
    found: dict[str, Chain] = {}
    for where, module in _modules(others or ""):
        chain = _chain_of(where, module)
        if chain is not None:
            if chain.name in found:
                raise BadChain(f"{where}: there is a chain of the name {chain.name!r} already")
            found[chain.name] = chain
    return [found[name] for name in sorted(found)]


async def described(chains: Sequence[Chain], model: BaseChatModel, turns: Turns) -> list[str]:
    """A line for each chain, which is built for it: its name, whether it remembers, its file, and what is doubtful.

    Raises `BadChain` for one that can't be built.
    """
    lines = list[str]()
    async with AsyncExitStack() as stack:
        for chain in chains:
            runnable = await stack.enter_async_context(chain.opened(model, turns))
            memory = "remembers" if chain.memory else "no memory"
            doubt = doubt_about(chain, runnable.inner)
            lines.append("\t".join([f"/{chain.name}", memory, chain.place, *([f"but: {doubt}"] if doubt else [])]))
    return lines


def _modules(others: str) -> Iterator[tuple[str, ModuleType]]:
    for name in sorted(module.name for module in pkgutil.iter_modules([str(_HERE)])):
        yield f"chains/{name}.py", _imported(f"chains/{name}.py", f"chains.{name}")
    for other in filter(None, (part.strip() for part in others.split(","))):
        path = Path(other).expanduser()
        if path.is_dir():
            yield from _files(path)
        elif path.suffix == ".py":
            yield other, _loaded(path)
        elif "/" in other:
            raise BadChain(f"RECOLLECT_CHAINS: there is no folder {other}")
        else:
            yield from _named(other)


def _files(folder: Path) -> Iterator[tuple[str, ModuleType]]:
    """The modules of a folder; what they import from beside them is found."""
    if str(folder.resolve()) not in sys.path:
        sys.path.append(str(folder.resolve()))
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield str(path), _loaded(path)


def _named(name: str) -> Iterator[tuple[str, ModuleType]]:
    """A module, and those in it if it is a package."""
    module = _imported(f"RECOLLECT_CHAINS: {name}", name)
    yield name, module
    for inner in pkgutil.iter_modules(getattr(module, "__path__", ())):
        yield f"{name}.{inner.name}", _imported(f"RECOLLECT_CHAINS: {name}.{inner.name}", f"{name}.{inner.name}")


def _imported(where: str, name: str) -> ModuleType:
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:
        raise _no_import(where, error) from error


def _loaded(path: Path) -> ModuleType:
    if not path.is_file():
        raise BadChain(f"RECOLLECT_CHAINS: there is no file {path.name}")
    spec = spec_from_file_location(f"recollect_chains_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadChain(f"RECOLLECT_CHAINS: {path.name} can't be imported")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # pydantic looks the names of annotations up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _no_import(str(path), error) from error
    return module


def _no_import(where: str, error: BaseException) -> BadChain:
    return BadChain(f"{where} can't be imported: {in_one_line(error)}")


def _chain_of(where: str, module: ModuleType) -> Chain | None:
    chain = getattr(module, "CHAIN", None)
    if chain is None:
        others = [name for name, value in vars(module).items() if isinstance(value, Chain) and not name.startswith("_")]
        if others and "CHAIN" not in vars(module):
            raise BadChain(f"{where}: call it CHAIN, not {others[0]}, to have it served")
        return None
    if not isinstance(chain, Chain):
        raise BadChain(f"{where}: CHAIN has to be a chains.Chain")
    chain = replace(chain, where=where)
    chain.check_name()
    return chain
