"""An index for an SQLite that was built without FTS5: the words of turns stand in it, and searches read them all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from typing_extensions import override

from histories import search
from histories.files.index import TABLES, Found, Index

_SAYS = "instr(' ' || words, ' ' || ?) > 0"


class PlainIndex(Index):
    """It gives the same answers, and takes longer for them the more there is."""

    version = 1003
    schema = f"""{TABLES}
CREATE TABLE said (id INTEGER PRIMARY KEY, words TEXT NOT NULL);
"""

    @override
    def with_word(self, word: str) -> set[int]:
        query = f"SELECT DISTINCT session FROM turns JOIN said USING (id) WHERE {_SAYS}"  # noqa: S608 - no stranger's
        return {key for (key,) in self.db.execute(query, [word])}

    @override
    def hits(self, wanted: Iterable[str], keys: Sequence[int], each: int) -> list[Found]:
        words = list(wanted)
        any_of, all_of = (way.join([_SAYS] * len(words)) for way in (" OR ", " AND "))
        query = (
            "SELECT name, turn, start, stop FROM turns JOIN said USING (id) JOIN sessions ON sessions.id = session "  # noqa: S608 - no stranger's
            f"WHERE start >= 0 AND session = ? AND ({any_of}) ORDER BY ({all_of}) DESC, start DESC LIMIT ?"
        )
        found = [row for key in keys for row in self.db.execute(query, [key, *words, *words, each])]
        return [Found(name, json.loads(turn), start, stop) for name, turn, start, stop in found]

    @override
    def ranked(self, query: str, name: str | None, limit: int) -> list[Found]:
        rows = self.db.execute(
            "SELECT name, turn, start, stop, words FROM turns JOIN said USING (id) "
            "JOIN sessions ON sessions.id = session WHERE complete AND (? IS NULL OR name = ?)",
            [name, name],
        )
        index, places = search.Index[int](), dict[int, Found]()
        for number, (of, turn, start, stop, words) in enumerate(rows):
            places[number] = Found(of, json.loads(turn), start, stop)
            index.add(number, words)
        best = index.rank(query, places.keys(), limit)
        return [Found(p.name, p.turn_id, p.start, p.stop, score) for n, score in best for p in [places[n]]]

    @override
    def _merge(self) -> None:
        return
