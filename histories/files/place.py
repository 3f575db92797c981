"""The names of a session's files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """The names of a session's files. `root` is the folder of all histories."""

    root: str
    user: str
    session: str

    @property
    def key(self) -> str:
        return f"{self.user}/{self.session}"

    @property
    def path(self) -> str:
        """Where the log is found."""
        return f"{self.root}/{self.user}/{self.session}.jsonl"

    @property
    def log(self) -> str:
        return f"{self.session}.jsonl"

    @property
    def lock(self) -> str:
        return f"{self.session}.turn"

    @property
    def line(self) -> str:
        return f"{self.session}.next"

    @property
    def journal(self) -> str:
        return f"{self.session}.journal"

    def document(self, name: str) -> str:
        return f"{self.session}.{name}.json"
