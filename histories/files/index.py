"""What is found in a user's sessions without reading them all: a list of them, and the words of their turns, in SQLite.

It stands beside the logs, in `index.sqlite3`, and is derived from them: what is missing in it is made anew, and it may
be removed at any time. Each session in it holds a mark of the log that it was made from, so that it is seen to be
behind. Nobody opens that file but SQLite: to close any other descriptor of it would free SQLite's locks.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from histories.search import terms, words

_MOST: Final = 500
"""A word that stands in more turns than this tells little about any of them, and costs most."""
_FORMS: Final = 100
"""So many words that begin like a stem are looked at."""

_MERGED: Final = 64
"""How many pages of words are merged at once: some milliseconds, in which nobody else writes to the index."""

_QUERY_WORDS: Final = 24
"""Of how many words of a question, the rarest ones, turns are ranked by."""

#: The row of a title starts at -1.
TABLES: Final = """
CREATE TABLE sessions (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, place TEXT NOT NULL, mark TEXT NOT NULL, settled INTEGER NOT NULL,
  entry TEXT, log TEXT NOT NULL, read TEXT NOT NULL DEFAULT '');
CREATE INDEX sessions_by_place ON sessions (place, name);
CREATE INDEX sessions_in_doubt ON sessions (name) WHERE settled = 0 OR mark = '';
CREATE INDEX sessions_unread ON sessions (place, name) WHERE read <> log;
CREATE TABLE turns (
  id INTEGER PRIMARY KEY, session INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
  complete INTEGER NOT NULL, turn TEXT NOT NULL);
CREATE UNIQUE INDEX turns_by_start ON turns (session, start);
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of a session: `entry` is its entry in a list, as JSON (None: nothing was recorded there).

    `place` is the time of its last change, which lists are in the order of. `mark` is that of its file, and `settled`
    whether no other content can have the same. `log` tells how far the log went then, and `read` how far its words
    have been read.
    """

    name: str
    place: str
    mark: str
    settled: bool
    entry: str | None
    log: str
    read: str = ""
    key: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """A turn in the index: from which byte of its log it goes up to which, and what it says."""

    start: int
    stop: int
    complete: bool
    turn_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """A turn that was found: in which log, and where."""

    name: str
    turn_id: str
    start: int
    stop: int
    score: float = 0.0


class Index:
    """An open index, for one thread at a time. Every method may raise `sqlite3.Error`."""

    version = 3
    # The words come cut up and folded, so this tokenizer has only to part them at spaces.
    schema = f"""{TABLES}
CREATE VIRTUAL TABLE said USING fts5 (words, tokenize = 'ascii');
CREATE VIRTUAL TABLE vocabulary USING fts5vocab (said, row);
"""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.db = connection
        self.inode = 0

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self.db.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """All that is written meanwhile comes into the index, or none of it."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self.db.execute("ROLLBACK")
            raise

    # Sessions.

    def marks(self) -> dict[str, str]:
        """The mark of each file in the index; "" if it is not settled."""
        return dict(self.db.execute("SELECT name, CASE settled WHEN 0 THEN '' ELSE mark END FROM sessions"))

    def names(self) -> set[str]:
        """The file of each session in the index."""
        return {name for (name,) in self.db.execute("SELECT name FROM sessions")}

    def doubted(self) -> set[str]:
        """Those of them that may have changed, even if they look the same."""
        return {name for (name,) in self.db.execute("SELECT name FROM sessions WHERE settled = 0 OR mark = ''")}

    def doubt(self, name: str) -> None:
        """Notes that a session may have changed since it was read, if it was."""
        found = self.db.execute("SELECT settled FROM sessions WHERE name = ?", [name]).fetchone()
        if found is not None and found[0]:
            self.db.execute("UPDATE sessions SET settled = 0 WHERE name = ?", [name])

    def row(self, name: str) -> Row | None:
        found = self.db.execute("SELECT * FROM sessions WHERE name = ?", [name]).fetchone()
        return None if found is None else _row(found)

    def behind(self) -> list[Row]:
        """The sessions whose words were not read up to the end of their logs, newest first."""
        return [
            _row(row)
            for row in self.db.execute("SELECT * FROM sessions WHERE read <> log ORDER BY place DESC, name DESC")
        ]

    def put(self, row: Row) -> None:
        """Puts a session in the place of what was known of it; its words stay, as far as they were read."""
        self.db.execute(
            "INSERT INTO sessions (name, place, mark, settled, entry, log, read) VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET place = excluded.place, mark = excluded.mark, "
            "settled = excluded.settled, entry = excluded.entry, log = excluded.log, read = excluded.read",
            [row.name, row.place, row.mark, row.settled, row.entry, row.log, row.read],
        )

    def drop(self, names: Iterable[str]) -> None:
        """Forgets sessions, and all that was said in them."""
        for name in names:
            row = self.row(name)
            if row is not None:
                self.forget_from(row, -1)
                self.db.execute("DELETE FROM sessions WHERE id = ?", [row.key])

    def newest(self, before: tuple[str, str] | None, limit: int, keys: Sequence[int] | None = None) -> Iterator[Row]:
        """The sessions that were used last, before that place and name; among those of these keys, if there are any.

        At most `limit`; -1: all.
        """
        among = None if keys is None else json.dumps(keys)
        rows = self.db.execute(
            "SELECT * FROM sessions WHERE entry IS NOT NULL AND (place, name) < (?, ?) "
            "AND (? IS NULL OR id IN (SELECT value FROM json_each(?))) ORDER BY place DESC, name DESC LIMIT ?",
            [*(before or ("~", "")), among, among, limit],
        )
        return map(_row, rows)

    # Words.

    def has(self, row: Row, start: int, stop: int) -> bool:
        """Whether the words of the turn that goes from here to there are in the index."""
        found = self.db.execute("SELECT stop FROM turns WHERE session = ? AND start = ?", [row.key, start])
        return bool(found.fetchone() == (stop,))

    def forget_from(self, row: Row, start: int, but: Iterable[int] = ()) -> None:
        """Forgets the words of turns from this byte on (of the title, too, with -1), but those that begin at these."""
        rows = [
            *self.db.execute(
                "SELECT id FROM turns WHERE session = ? AND start >= ? "
                "AND start NOT IN (SELECT value FROM json_each(?))",
                [row.key, start, json.dumps([*but])],
            )
        ]
        self.db.executemany("DELETE FROM said WHERE rowid = ?", rows)
        self.db.executemany("DELETE FROM turns WHERE id = ?", rows)
        if rows:
            self.note("purge", self.fact("purge") + 1)

    def put_words(self, row: Row, some: Iterable[Said], read: str) -> None:
        """Puts in the words of turns, up to where the log was `read`."""
        for said in some:
            self.db.execute(
                "DELETE FROM said WHERE rowid = (SELECT id FROM turns WHERE session = ? AND start = ?)",
                [row.key, said.start],
            )
            self.db.execute("DELETE FROM turns WHERE session = ? AND start = ?", [row.key, said.start])
            place = [row.key, said.start, said.stop, said.complete, json.dumps(said.turn_id)]
            made = self.db.execute(
                "INSERT INTO turns (session, start, stop, complete, turn) VALUES (?, ?, ?, ?, ?)", place
            )
            self.db.execute(
                "INSERT INTO said (rowid, words) VALUES (?, ?)", [made.lastrowid, " ".join(words(said.text))]
            )
        self.db.execute("UPDATE sessions SET read = ? WHERE id = ?", [read, row.key])

    def with_word(self, word: str) -> set[int]:
        """The keys of the sessions in which a word begins like this."""
        query = "SELECT DISTINCT session FROM turns WHERE id IN (SELECT rowid FROM said WHERE said MATCH ?)"
        return {key for (key,) in self.db.execute(query, [f"{_quoted(word)} *"])}

    def hits(self, wanted: Iterable[str], keys: Sequence[int], each: int) -> list[Found]:
        """Turns of each of these sessions in which these words begin words: all of them, and then any; the newest."""
        match = [f"{_quoted(word)} *" for word in wanted]
        rows = self.db.execute(
            "SELECT name, turn, start, stop FROM (SELECT session, turn, start, stop, row_number() OVER (PARTITION BY "
            "session ORDER BY id IN (SELECT rowid FROM said WHERE said MATCH ?) DESC, start DESC) AS number "
            "FROM turns WHERE start >= 0 AND id IN (SELECT rowid FROM said WHERE said MATCH ?) "
            "AND session IN (SELECT value FROM json_each(?))) "
            "AS found JOIN sessions ON sessions.id = found.session WHERE number <= ? ORDER BY name, number",
            [" AND ".join(match), " OR ".join(match), json.dumps(keys), each],
        )
        return [Found(name, json.loads(turn), start, stop) for name, turn, start, stop in rows]

    def ranked(self, query: str, name: str | None, limit: int) -> list[Found]:
        """The complete turns that have words of the query, best first."""
        wanted = self._telling(set(terms(query)))
        if not wanted:
            return []
        row = None if name is None else self.row(name)
        rows = self.db.execute(
            "SELECT name, turn, start, stop, -bm25(said) AS score FROM said JOIN turns ON turns.id = said.rowid "
            "JOIN sessions ON sessions.id = turns.session WHERE said MATCH ? AND complete "
            "AND (? IS NULL OR turns.session = ?) ORDER BY score DESC LIMIT ?",
            [" OR ".join(map(_quoted, wanted)), name, 0 if row is None else row.key, limit],
        )
        return [Found(name, json.loads(turn), start, stop, score) for name, turn, start, stop, score in rows]

    def _telling(self, stems: set[str]) -> list[str]:
        """The words that are there and have these stems: of those stems that tell most, rarest first."""
        found = sorted((forms for stem in stems if (forms := self._forms(stem))[0]), key=_rarest)[:_QUERY_WORDS]
        told = [forms for number, forms in enumerate(found) if forms[0] <= _MOST or number == 0]
        return [word for _, some in told for word in some]

    def _forms(self, stem: str) -> tuple[int, list[str]]:
        """The words that are there of one stem, and in how many turns they are."""
        counts = "SELECT term, doc FROM vocabulary WHERE term >= ? AND term < ? LIMIT ?"
        rows = self.db.execute(counts, [stem, stem + "\U0010ffff", _FORMS])
        found = [(word, turns) for word, turns in rows if word == stem or terms(word) == [stem]]
        return sum(turns for _, turns in found), [word for word, _ in found]

    # What has to be known of the index itself.

    def note(self, fact: str, value: int) -> None:
        self.db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", [fact, value])

    def fact(self, name: str) -> int:
        """What was noted; 0 if nothing was."""
        found = self.db.execute("SELECT value FROM facts WHERE name = ?", [name]).fetchone()
        return int(found[0]) if found else 0

    def purge(self) -> bool:
        """Takes what was forgotten from the file: FTS5 only marks it, and the write-ahead log holds it, until then.

        Gives whether there was any.
        """
        forgotten = self.fact("purge")
        if not forgotten:
            return False
        self._merge()
        busy, _, _ = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        with self.writing():
            if not busy and self.fact("purge") == forgotten:
                self.note("purge", 0)
        return True

    def _merge(self) -> None:
        """Makes one segment of FTS5's, without what was forgotten: part by part, so that others get to write."""
        pages, changed = -_MERGED, _MERGED
        while changed > 1:
            before = self.db.total_changes
            with self.writing():
                self.db.execute("INSERT INTO said (said, rank) VALUES ('merge', ?)", [pages])
            pages, changed = _MERGED, self.db.total_changes - before


def _rarest(forms: tuple[int, list[str]]) -> tuple[int, bool, list[str]]:
    """What the words of a question are ordered by: of those that are as rare, numbers come last."""
    turns, some = forms
    return turns, some[0].isdigit(), some


def _quoted(word: str) -> str:
    """A word (of `histories.search`: no quotation mark is in one) as FTS5 takes it for nothing else."""
    return f'"{word}"'


def _row(found: Sequence[object]) -> Row:
    key, name, place, mark, settled, entry, log, read = found
    return Row(str(name), str(place), str(mark), bool(settled), entry, str(log), str(read), key)  # type: ignore[arg-type]
