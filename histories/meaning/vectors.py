"""The vectors of what was said, in Milvus: ids and numbers, no text. pymilvus blocks, so threads of its own call it.

A row is a part of a turn; its user is the partition key, and stands in each filter. One more row of each session, the
head, tells how the session was when all of it had been brought in. Names are hashed: nothing a client sends is part of
a filter.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

T = TypeVar("T")

PREFIX: Final = "recollect_turns_"
_HEAD: Final = -1
_SEARCH_S: Final = 1.0
_WORK_S: Final = 30.0
_MOST: Final = 16_000
"""Milvus gives no more rows to one question."""
_BATCH: Final = 1_000
_ID: Final = 64
_PLACE: Final = 4_096  # two ids of 128 characters as JSON in ASCII

Vector = Sequence[float]


class MeaningUnavailable(Exception):
    """Milvus or the embeddings can't be reached, or refuse. The text holds no secret: it names the kind of error."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of what was said in a turn, and its vector."""

    turn_id: str
    part: int
    vector: Vector


@dataclass(frozen=True, slots=True)
class Near:
    """A turn near to a question: the more `score` the nearer."""

    session_id: str
    turn_id: str
    score: float


def hashed(*names: str) -> str:
    """What stands for names in Milvus."""
    return sha256(json.dumps(names).encode()).hexdigest()


class Vectors:
    """One collection: that of the embeddings model of that name. Every method may raise `MeaningUnavailable`."""

    def __init__(self, url: str, model: str) -> None:
        self._url, self.name = url, PREFIX + hashed(model)[:16]
        self._client: Any = None
        self.is_ready, self._dimension = False, 0
        """Whether it can be searched, as far as is known."""

        self._searches = ThreadPoolExecutor(4, "recollect-milvus-search")
        self._work = ThreadPoolExecutor(1, "recollect-milvus")

    async def close(self) -> None:
        """Lets go of the connection, once its last call has ended."""
        self._searches.shutdown(wait=False, cancel_futures=True)
        client, self._client = self._client, None
        if client is not None:
            self._work.submit(_quietly, client.close)
        self._work.shutdown(wait=False)

    async def is_there(self) -> bool:
        """Whether the collection is there; if so, it is made ready for searches."""
        if not self.is_ready:
            self.is_ready = await self._do(self._load)
        return self.is_ready

    def _load(self, client: Any) -> bool:
        if not client.has_collection(self.name, timeout=_WORK_S):
            return False
        client.load_collection(self.name, timeout=_WORK_S)
        fields = client.describe_collection(self.name, timeout=_WORK_S)["fields"]
        self._dimension = next(int(one["params"]["dim"]) for one in fields if one["name"] == "vector")
        return True

    async def make(self, dimension: int) -> None:
        """Makes the collection, if it is not there. Vectors of another model are of no use: they go."""
        await self._do(lambda client: self._make(client, dimension))
        self.is_ready = True

    def _make(self, client: Any, dimension: int) -> None:
        from pymilvus import DataType

        for other in client.list_collections(timeout=_WORK_S):
            if other.startswith(PREFIX) and other != self.name:
                client.drop_collection(other, timeout=_WORK_S)
        if self._load(client):
            return
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=2 * _ID)
        schema.add_field("user", DataType.VARCHAR, max_length=_ID, is_partition_key=True)
        schema.add_field("session", DataType.VARCHAR, max_length=_ID)
        schema.add_field("turn", DataType.VARCHAR, max_length=_ID)
        schema.add_field("part", DataType.INT64)
        schema.add_field("place", DataType.VARCHAR, max_length=_PLACE)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
        indexed = client.prepare_index_params()
        indexed.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
        made = {"schema": schema, "index_params": indexed, "timeout": _WORK_S, "consistency_level": "Bounded"}
        client.create_collection(self.name, **made)
        self._load(client)

    async def drop(self) -> None:
        """Forgets all vectors, those of other models, too."""
        self.is_ready = False
        await self._do(self._drop)

    def _drop(self, client: Any) -> None:
        for one in client.list_collections(timeout=_WORK_S):
            if one.startswith(PREFIX):
                client.drop_collection(one, timeout=_WORK_S)

    # Questions.

    async def near(self, user_id: str, session_id: str | None, vector: Vector, limit: int) -> list[Near]:
        """The user's turns that are nearest to a vector, nearest first: of one session, or of all."""
        wanted = f"{_of(user_id, session_id)} and part >= 0"

        def search(client: Any) -> list[Near]:
            (rows,) = client.search(
                self.name, [list(vector)], filter=wanted, limit=2 * limit, output_fields=["place"], timeout=_SEARCH_S
            )
            best = dict[str, Near]()
            for row in rows:
                place = row["entity"]["place"]
                session, turn = json.loads(place)
                best.setdefault(place, Near(session, turn, float(row["distance"])))
            return list(best.values())[:limit]

        return await self._on(self._searches, search)

    async def turns(self, user_id: str, session_id: str) -> set[str]:
        """The turn_ids of the session that are there."""
        rows = await self._rows(f"{_of(user_id, session_id)} and part == 0", "place")
        return {json.loads(row["place"])[1] for row in rows}

    async def heads(self, user_id: str) -> dict[str, str]:
        """The marks of the user's sessions, by their ids."""
        rows = await self._rows(f"{_of(user_id)} and part == {_HEAD}", "place")
        return dict(json.loads(row["place"]) for row in rows)

    async def head(self, user_id: str, session_id: str) -> str | None:
        """The session's mark, None if not all of it was ever brought in."""
        rows = await self._rows(f"{_of(user_id, session_id)} and part == {_HEAD}", "place")
        return next((json.loads(row["place"])[1] for row in rows), None)

    async def users(self) -> set[str]:
        """All who have vectors, as `hashed`."""
        return {row["user"] for row in await self._rows(f"part == {_HEAD}", "user")}

    async def _rows(self, wanted: str, field: str) -> list[dict[str, Any]]:
        def read(client: Any) -> list[dict[str, Any]]:
            asked = {"filter": wanted, "output_fields": ["id", field], "timeout": _WORK_S}
            rows = list(client.query(self.name, limit=_MOST, consistency_level="Strong", **asked))
            if len(rows) < _MOST:
                return rows
            found, pages = list[dict[str, Any]](), client.query_iterator(self.name, batch_size=_BATCH, **asked)
            while page := pages.next():
                found += page
            pages.close()
            return found

        return await self._do(read)

    # Changes.

    async def put(self, user_id: str, session_id: str, pieces: Sequence[Piece]) -> None:
        """Puts in parts of turns, in the place of what is there of the same."""
        user, session = hashed(user_id), hashed(user_id, session_id)
        rows = [
            {
                "id": f"{hashed(user_id, session_id, one.turn_id)}.{one.part}",
                "user": user,
                "session": session,
                "turn": hashed(one.turn_id),
                "part": one.part,
                "place": json.dumps([session_id, one.turn_id]),
                "vector": list(one.vector),
            }
            for one in pieces
        ]
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            await self._do(partial(self._upsert, some))

    def _upsert(self, rows: list[dict[str, Any]], client: Any) -> None:
        client.upsert(self.name, rows, timeout=_WORK_S)

    async def put_head(self, user_id: str, session_id: str, mark: str) -> None:
        """Notes how the session was when all of it had been brought in."""

        def put(client: Any) -> None:
            row = {"id": f"{hashed(user_id, session_id)}.head", "user": hashed(user_id), "turn": "", "part": _HEAD}
            row |= {"session": hashed(user_id, session_id), "place": json.dumps([session_id, mark])}
            client.upsert(self.name, [row | {"vector": [1.0] * self._dimension}], timeout=_WORK_S)

        await self._do(put)

    async def remove(self, user_id: str, session_id: str, turn_ids: Iterable[str] | None = None) -> None:
        """Forgets these turns of a session, or all of it (None)."""
        if turn_ids is None:
            return await self._remove(_of(user_id, session_id))
        names = [hashed(one) for one in turn_ids]
        for start in range(0, len(names), _BATCH):
            some = json.dumps(names[start : start + _BATCH])
            await self._remove(f"{_of(user_id, session_id)} and turn in {some}")
        return None

    async def remove_user(self, user: str) -> None:
        """Forgets all of a user, as `hashed`."""
        await self._remove(f'user == "{user}"')

    async def _remove(self, wanted: str) -> None:
        await self._do(lambda client: client.delete(self.name, filter=wanted, timeout=_WORK_S))

    async def compact(self) -> None:
        """Asks Milvus to take from its disk what was removed: until then it is only marked."""

        def compact(client: Any) -> None:
            client.flush(self.name, timeout=_WORK_S)
            client.compact(self.name, timeout=_WORK_S)

        await self._do(compact)

    # Calls.

    async def _do(self, call: Callable[[Any], T]) -> T:
        return await self._on(self._work, call)

    async def _on(self, threads: ThreadPoolExecutor, call: Callable[[Any], T]) -> T:
        def run() -> T:
            return call(self._connected())

        try:
            return await asyncio.get_running_loop().run_in_executor(threads, run)
        except ImportError:
            raise MeaningUnavailable("pymilvus is not installed: pip install 'pymilvus>=3,<4'") from None
        except Exception as error:  # noqa: BLE001 - pymilvus's, gRPC's, or the system's
            self.is_ready = False  # it may have been made anew meanwhile
            raise MeaningUnavailable(f"Milvus: {type(error).__name__}") from None  # its text may repeat the URL

    def _connected(self) -> Any:
        if self._client is None:
            for noisy in ("pymilvus", "grpc._server"):  # they tell each failure that is raised again, or is none
                logging.getLogger(noisy).setLevel(logging.CRITICAL)
            from pymilvus import MilvusClient

            self._client = MilvusClient(**_connection(self._url), timeout=_WORK_S)
        return self._client


def _of(user_id: str, session_id: str | None = None) -> str:
    """The filter without which no question is asked about somebody's rows."""
    user = f'user == "{hashed(user_id)}"'
    return user if session_id is None else f'{user} and session == "{hashed(user_id, session_id)}"'


def _connection(url: str) -> dict[str, str]:
    """What pymilvus takes for a URL: `milvus:/a/file.db`, or `http://user:password@host:19530/database`."""
    if url.startswith("milvus:"):
        return {"uri": url.removeprefix("milvus:")}
    parts = urlsplit(url)
    secret, _, host = parts.netloc.rpartition("@")
    return {
        "uri": f"{parts.scheme}://{host}",
        **({"token": unquote(secret)} if secret else {}),
        **({"db_name": parts.path.strip("/")} if parts.path.strip("/") else {}),
    }


def _quietly(close: Callable[[], object]) -> None:
    try:
        close()
    except Exception:  # noqa: BLE001 - it is gone, whatever it says of it
        return
