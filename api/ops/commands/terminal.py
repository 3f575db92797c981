"""How commands talk with the operator, and where they write down what was done."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from getpass import getpass
from typing import Any, Final, TextIO
from urllib.parse import urlsplit

from auth.audit import Audit
from settings import Settings, environment_url

Command = Callable[[argparse.Namespace, Settings], int]

MISUSE: Final = 2
"""The exit status of a command that can't do what it is for."""

_TELL_EVERY_S: Final = 5.0
_REDRAW_EVERY_S: Final = 0.1


class CommandFailed(Exception):
    """A command can't do what it is for. The text is one line for the operator."""


def add_command(commands: Any, name: str, run: Command, short: str) -> argparse.ArgumentParser:
    """The parser of a command, which `run` does. What it says of itself is its docstring."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=short, description=run.__doc__)
    parser.set_defaults(run=run)
    return parser


def hint(text: str) -> None:
    """Tells the operator something that no program reads."""
    print(text, file=sys.stderr)


def fail(text: str) -> int:
    """Tells what is wrong, in one line; gives the status."""
    print(f"admin.py: {text}", file=sys.stderr)
    return MISUSE


def audit(settings: Settings, act: str, *, ok: bool = True, **what: Any) -> None:
    """Writes a command down. Who ran it is the account on this machine."""
    Audit(settings.data_dir, durable=True).note(act, who=f"uid {os.getuid()}", source="admin.py", ok=ok, **what)


def agreed(question: str) -> bool:
    """Whether the operator says yes; nobody does where nobody can be asked."""
    return sys.stdin.isatty() and input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


class Progress:
    """How far long work is: one line that changes on a terminal, elsewhere one every few seconds, on standard error."""

    def __init__(self, out: TextIO | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        self._out, self._now = out or sys.stderr, now
        self._is_terminal, self._drawn = self._out.isatty(), 0
        self._told_at = now()

    def __call__(self, text: str) -> None:
        """Tells it, if there was silence for long enough."""
        pause = _REDRAW_EVERY_S if self._is_terminal else _TELL_EVERY_S
        if self._now() - self._told_at < pause:
            return
        self._told_at = self._now()
        if not self._is_terminal:
            print(text, file=self._out, flush=True)
            return
        self._out.write("\r" + text.ljust(self._drawn))
        self._out.flush()
        self._drawn = len(text)

    def clear(self) -> None:
        """Takes the line away: something else is to be said."""
        if self._drawn:
            self._out.write("\r" + " " * self._drawn + "\r")
            self._out.flush()
            self._drawn = 0


def store_url(said: str, what: str) -> str:
    """The URL of a store: as it is, from the variable NAME (`env:NAME`), or asked for (`-`). Raises CommandFailed.

    What stands in a command line can be read by everybody on the machine, so it is no place for a password.
    """
    if said == "-":
        asked = getpass(f"{what}: ") if sys.stdin.isatty() else sys.stdin.readline()
        return _known(asked.strip(), what)
    if said.startswith("env:"):
        name = said.removeprefix("env:")
        found = environment_url(name)
        if found is None:
            raise CommandFailed(f"{what}: the variable {name} is not set")
        return _known(found, what)
    if _has_password(said):
        hint(f"admin.py: whoever lists this machine's processes can read the password of {what}: - asks for it")
    return _known(said, what)


def _known(url: str, what: str) -> str:
    scheme = url.partition(":")[0]
    if scheme not in ("file", "memory", "redis", "rediss", "postgresql") or ":" not in url:
        # It may be a secret that came to the wrong place: it is not repeated.
        raise CommandFailed(f"{what} must be file:, file:/some/dir, redis://…, rediss://… or postgresql://…")
    return url


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None
    except ValueError:
        return False


def without_password(url: str) -> str:
    """Which store a URL names, for the audit log."""
    scheme, _, rest = url.partition("://")
    return url if not rest else f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
