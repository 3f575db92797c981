"""Recall by meaning, over each store: a real Milvus (Lite), and embeddings over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from chat_models.embeddings import Embeddings, EmbeddingsUnavailable
from histories.base import HistoryStore
from histories.meaning.follower import parts_of
from histories.meaning.meaning import Meaning, fused, removed_only
from histories.meaning.vectors import MeaningUnavailable, Vectors
from histories.memory import MemoryStore
from tests.openai_stub import OpenAIStub
from tests.proofs import proves
from tests.stores import FAILED, begun, replied, said, talk


@pytest.fixture
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"milvus:{tmp_path / 'vectors.db'}"


def made(store: HistoryStore, url: str, stub: OpenAIStub, model: str = "m") -> Meaning:
    embeddings = Embeddings(stub.base_url, SecretStr("secret"), model)

    async def embed(texts: Any) -> Any:
        try:
            return await embeddings(texts)
        except EmbeddingsUnavailable as error:
            raise MeaningUnavailable(str(error)) from None

    return Meaning(store, Vectors(url, model), embed, embeddings.close)


@asynccontextmanager
async def meaning_over(store: HistoryStore, url: str, stub: OpenAIStub, model: str = "m") -> AsyncIterator[Meaning]:
    meaning = made(store, url, stub, model)
    async with meaning.following():
        yield meaning


async def near(meaning: Meaning, query: str, session: str | None = "s1", user: str = "alice") -> list[str]:
    """What the vectors alone give, nearest first, once they are in step."""
    async with asyncio.timeout(60):
        await meaning.follower.settled()
    found = await meaning._near(user, query, session, ())
    return [str(one.turn.input[0].content) for one in found if one.score > 0.2]


async def rows(meaning: Meaning, user: str = "alice", session: str = "s1") -> set[str]:
    async with asyncio.timeout(60):
        await meaning.follower.settled()
    return await meaning._vectors.turns(user, session)


async def test_what_is_meant_is_recalled_though_no_word_of_it_was_said(
    store: HistoryStore, url: str, stub: OpenAIStub
) -> None:
    async with meaning_over(store, url, stub) as meaning:
        await talk(meaning.store.history("alice", "s1"), "our dog is Rex", "the weather is fine", "it rains")
        assert (await near(meaning, "hound"))[0] == "our dog is Rex"
        found = await meaning.store.recall("alice", "hound", session_id="s1")
        assert found[0].turn.input[0].content == "our dog is Rex"
        assert await store.recall("alice", "hound", session_id="s1") == []


@proves("G7")
async def test_users_never_meet_and_sessions_do_if_all_are_asked(
    store: HistoryStore, url: str, stub: OpenAIStub
) -> None:
    async with meaning_over(store, url, stub) as meaning:
        await talk(meaning.store.history("alice", "s1"), "alice has a dog")
        await talk(meaning.store.history("alice", "s2"), "alice wants another dog")
        await talk(meaning.store.history("bob", "s1"), "bob has a dog")
        assert await near(meaning, "puppy") == ["alice has a dog"]
        assert sorted(await near(meaning, "puppy", None)) == ["alice has a dog", "alice wants another dog"]
        assert await near(meaning, "puppy", None, "bob") == ["bob has a dog"]
        assert await near(meaning, "puppy", None, 'x" or user != "') == []


@proves("G14")
async def test_what_is_rewound_replaced_failed_or_deleted_is_gone_from_the_vectors(
    store: HistoryStore, url: str, stub: OpenAIStub
) -> None:
    async with meaning_over(store, url, stub) as meaning:
        history = meaning.store.history("alice", "s1")
        ids = await talk(history, "a dog named Rex", "a dog named Lou", "a dog named Max")
        await talk(history, "a dog named Nil", reply=FAILED)
        assert await rows(meaning) == set(ids)
        await history.delete_turn(ids[1])
        assert await rows(meaning) == {ids[0], ids[2]}
        version = await begun(history, said("a cat named Tom", version_of=ids[2]))
        await version.end(replied("mew"))
        assert await rows(meaning) == {ids[0], version.turn_id}
        await history.choose(ids[2])
        assert await rows(meaning) == {ids[0], ids[2]}
        await history.fork("s2", ids[0])
        assert await rows(meaning, session="s2") == {ids[0]}
        await history.rewind(ids[2])
        assert await rows(meaning) == {ids[0]}
        await history.delete()
        assert await rows(meaning) == set()
        assert await near(meaning, "dog", None) == ["a dog named Rex"]
        await meaning.store.forget("alice")
        assert await rows(meaning, session="s2") == set()
        assert await meaning._vectors.users() == set()


async def test_what_milvus_still_has_is_not_recalled_once_it_is_not_shown(
    store: HistoryStore, url: str, stub: OpenAIStub
) -> None:
    async with meaning_over(store, url, stub) as meaning:
        ids = await talk(meaning.store.history("alice", "s1"), "a dog named Rex", "a dog named Lou")
        assert len(await near(meaning, "puppy")) == 2
        await store.history("alice", "s1").rewind(ids[1], keep=True)  # by a process that has no vectors
        assert [one.turn.turn_id for one in await meaning._near("alice", "puppy", "s1", ())] == [ids[0]]
        assert await rows(meaning) == {ids[0]}


async def test_what_was_said_or_deleted_without_vectors_is_found_by_the_next_look(
    store: HistoryStore, url: str, stub: OpenAIStub
) -> None:
    ids = await talk(store.history("alice", "s1"), "a dog named Rex")
    await talk(store.history("bob", "s1"), "a dog named Bello")
    async with meaning_over(store, url, stub) as meaning:
        assert await rows(meaning) == set(ids)
        ids += await talk(store.history("alice", "s1"), "a dog named Lou")
        await store.forget("bob")
        await meaning.store.tidy()
        assert await rows(meaning) == set(ids)
        assert len(await meaning._vectors.users()) == 1
        embedded = len(stub.embedded)
        await meaning.store.tidy()
        assert await rows(meaning) == set(ids)
        assert len(stub.embedded) == embedded


async def test_an_operator_who_has_no_embeddings_deletes_from_the_vectors_too(
    store: HistoryStore, url: str, stub: OpenAIStub
) -> None:
    async with meaning_over(store, url, stub) as meaning:
        await talk(meaning.store.history("alice", "s1"), "a dog named Rex")
        await talk(meaning.store.history("bob", "s1"), "a dog named Bello")
        assert await rows(meaning)
    operator = Meaning(store, Vectors(url, "m"), removed_only)
    await operator.store.forget("alice")
    assert await operator.removes()
    assert await operator._vectors.turns("alice", "s1") == set()
    assert len(await operator._vectors.turns("bob", "s1")) == 1
    await operator.close()


async def test_without_milvus_or_embeddings_words_are_found_in_time_and_it_is_made_up_for_later(
    url: str, stub: OpenAIStub, caplog: pytest.LogCaptureFixture
) -> None:
    store, loop = MemoryStore(), asyncio.get_running_loop()
    async with meaning_over(store, "http://user:hunter2@127.0.0.1:9", stub) as meaning:
        await talk(meaning.store.history("alice", "s1"), "a dog named Rex")
        for _ in range(3):
            at = loop.time()
            assert len(await meaning.store.recall("alice", "dog")) == 1
            assert loop.time() - at < 0.3
    assert "hunter2" not in caplog.text
    async with meaning_over(store, url, stub) as meaning:
        assert await near(meaning, "hound") == ["a dog named Rex"]
        stub.embeddings_delay_s = 5
        at = loop.time()
        assert len(await meaning.store.recall("alice", "dog")) == 1
        assert loop.time() - at < 0.3
        at = loop.time()
        assert len(await meaning.store.recall("alice", "dog")) == 1
        assert loop.time() - at < 0.1  # it is not asked again at once
        stub.embeddings_delay_s, stub.embeddings_status = 0, 503
        await talk(meaning.store.history("alice", "s1"), "a dog named Lou")
        assert len(await meaning.store.recall("alice", "dog")) == 2
        stub.embeddings_status = 200
        assert len(await near(meaning, "hound")) == 2
    assert "secret" not in caplog.text


async def test_another_model_makes_the_vectors_anew_and_those_of_the_first_go(url: str, stub: OpenAIStub) -> None:
    store = MemoryStore()
    async with meaning_over(store, url, stub) as meaning:
        await talk(meaning.store.history("alice", "s1"), "a dog named Rex")
        assert await rows(meaning)
    stub.embeds = lambda text: [1.0, float(len(text))]
    async with meaning_over(store, url, stub, "another") as meaning:
        assert await near(meaning, "puppy") == ["a dog named Rex"]
        assert await meaning._vectors._do(lambda client: client.list_collections()) == [meaning._vectors.name]


async def test_a_rebuild_brings_in_all_that_is_there(store: HistoryStore, url: str, stub: OpenAIStub) -> None:
    async with meaning_over(store, url, stub) as meaning:
        ids = await talk(meaning.store.history("alice", "s1"), "a dog named Rex", "a dog named Lou")
        assert await rows(meaning) == set(ids)
    anew = made(store, url, stub)
    assert await anew.rebuild() == (1, 2)
    assert await anew._vectors.turns("alice", "s1") == set(ids)
    await anew.close()


async def test_of_a_long_turn_each_part_is_found(url: str, stub: OpenAIStub) -> None:
    async with meaning_over(MemoryStore(), url, stub) as meaning:
        await talk(meaning.store.history("alice", "s1"), "nothing " * 378 + "our dog is Rex", "something else")
        assert len(parts_of("nothing " * 378)) == 3
        assert (await near(meaning, "our hound is Rex"))[0].endswith("our dog is Rex")


async def test_what_both_find_comes_first() -> None:
    store = MemoryStore()
    await talk(store.history("alice", "s1"), "one word", "two words", "three words")
    one, two, three = sorted(await store.recall("alice", "word"), key=lambda found: found.turn.started_at)
    assert fused([one, two], [three, two])[0].turn.turn_id == two.turn.turn_id
