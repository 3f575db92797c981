"""What the parts of the benchmark share: the clients, a folder for data, how long and how often."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.peers import python_of_peers
from bench.processes import Clients, Server, serving


class Bench:
    """One run of the benchmark."""

    def __init__(self, folder: Path, *, quick: bool = False, peers: bool = True, rounds: int | None = None) -> None:
        self.folder, self.quick, self._peers = folder, quick, peers
        self.seconds, self.rounds = (0.3, rounds or 2) if quick else (0.8, rounds or 5)
        self._places = 0

    def __enter__(self) -> Bench:
        self.clients = Clients()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clients.end()

    @cached_property
    def _python(self) -> str | None:
        return python_of_peers() if self._peers else None

    def place(self) -> Path:
        """A folder that nothing else uses."""
        self._places += 1
        return self.folder / str(self._places)

    def python(self, subject: str) -> str:
        """Which Python runs a subject."""
        return sys.executable if subject == "recollect" else self._python or sys.executable

    @contextmanager
    def servers(self, *subjects: str, model: str = "instant") -> Iterator[dict[str, Server]]:
        """The subjects, all serving at once. Those that can't be had here are left out."""
        with ExitStack() as stack:
            running = {}
            for subject in subjects:
                if subject == "example" and self._python is None:
                    continue
                server = serving(subject, self.place(), model=model, python=self.python(subject))
                running[subject] = stack.enter_context(server)
            yield running


Result = dict[str, Any]
Parts = Mapping[str, Callable[[Bench], Result]]


def table(heads: list[str], rows: list[list[str]]) -> None:
    """Prints a table in Markdown."""
    widths = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    for row in [heads, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    sys.stdout.flush()
