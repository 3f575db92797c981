"""What is wrong with a request is said in a sentence and by 422 (or 413), on every endpoint, and never runs a turn."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.calls import CHAINS, STREAMS, WAYS, body_of, call, config_hash, error_of, input_of, said
from tests.live_server import Here, langserve_warns, serve_here
from tests.openai_stub import OpenAIStub
from tests.proofs import proves

pytestmark = langserve_warns
LIMIT = 300_000


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture(scope="module")
def server(stub: OpenAIStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    with serve_here(tmp_path_factory.mktemp("input"), openai_base_url=stub.base_url, max_body_bytes=LIMIT) as server:
        yield server


@pytest.fixture(scope="module")
def alice(server: Here) -> Iterator[httpx.Client]:
    with server.client("alice") as client:
        yield client


def post(client: httpx.Client, path: str, body: Any) -> httpx.Response:
    """Posts JSON in ASCII, so that even lone surrogates can be sent."""
    return client.post(path, content=body if isinstance(body, bytes) else json.dumps(body).encode("ascii"))


# --- sessions and turns

BAD_IDS = {
    "empty": "",
    "blank": "   ",
    "too long": "x" * 129,
    "a control character": "a\x07b",
    "a line feed": "a\n",
    "a NUL": "\0",
    "a number": 5,
    "true": True,
    "an object": {"a": "b"},
    "a list": ["a"],
    "two dots": "..",
    "a slash": "a/b",
    "a backslash": "a\\b",
    "a lone surrogate": "a\ud800",
    "a C1 control character": "a\x85b",
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("name", [*BAD_IDS, "null", "missing"])
def test_a_session_id_that_is_none_gets_a_sentence_that_says_how_to_send_one(
    alice: httpx.Client, stub: OpenAIStub, chain: str, name: str
) -> None:
    asked = len(stub.requests)
    configurable = {} if name == "missing" else {"session_id": BAD_IDS.get(name)}
    config = {"configurable": configurable}
    for way in WAYS:
        value = input_of(chain, "one")
        in_body = post(alice, f"/{chain}/{way}", body_of(way, value, config=config))
        in_hash = post(alice, f"/{chain}/c/{config_hash(config)}/{way}", body_of(way, value))
        for answer in (in_body, in_hash):
            status, sentence = error_of(answer)
            assert status == 422
            assert 'Send {"configurable": {"session_id": "…"}} in the config' in sentence
            assert "1 to 128 characters" in sentence
    assert len(stub.requests) == asked


@pytest.mark.parametrize("config", [None, {}, {"configurable": {}}, {"tags": ["x"]}])
@pytest.mark.parametrize("way", WAYS)
def test_a_request_without_a_session_is_told_how_to_send_one(alice: httpx.Client, way: str, config: Any) -> None:
    rest = {} if config is None else {"config": config}
    status, sentence = error_of(post(alice, f"/chat/{way}", body_of(way, input_of("chat", "one"), **rest)))
    assert status == 422
    assert '"session_id"' in sentence


@pytest.mark.parametrize("turn_id", ["x" * 129, "a/b", "..", "\0", " ", 5, ["a"], {"a": 1}, "\ud800"])
def test_a_turn_id_that_is_none_is_refused_as_well(alice: httpx.Client, turn_id: Any) -> None:
    config = {"configurable": {"session_id": "turns", "turn_id": turn_id}}
    for way in WAYS:
        status, sentence = error_of(post(alice, f"/chat/{way}", body_of(way, input_of("chat", "one"), config=config)))
        assert status == 422
        assert '"turn_id"' in sentence


@pytest.mark.parametrize("session_id", ["😀" * 128, "x" * 128, "…", "a b", "%2e%2e", "名前", "CON", ".a", "e\u0301"])
@pytest.mark.parametrize("hashed", [False, True], ids=["body", "hash"])
def test_any_script_makes_a_session_id(alice: httpx.Client, session_id: str, hashed: bool) -> None:
    text = f"one {uuid4()}"
    assert text in said(call(alice, text, session_id, hashed=hashed))
    assert f"{text} | two" in said(call(alice, "two", session_id, hashed=hashed))


def test_a_batch_with_one_bad_session_runs_nothing(alice: httpx.Client, stub: OpenAIStub) -> None:
    asked = len(stub.requests)
    for bad in ([{"configurable": {"session_id": "a"}}, {}], [{"configurable": {"session_id": "a"}}]):
        body = {"inputs": [input_of("chat", "one"), input_of("chat", "two")], "config": bad}
        assert post(alice, "/chat/batch", body).status_code == 422
    assert len(stub.requests) == asked


# --- bodies

CONFIG = {"configurable": {"session_id": "bodies"}}
GOOD = input_of("chat", "one")


def both(value: Any, **rest: Any) -> bytes:
    """A body for invoke and the streams, and for batch as well."""
    return json.dumps({"input": value, "inputs": [value], "config": CONFIG} | rest).encode("ascii")


MALFORMED = {
    "nothing": b"",
    "not JSON": b"{",
    "not UTF-8": b'{"input": {"input": "\xff"}}',
    "UTF-16": json.dumps({"input": "x"}).encode("utf-16"),
    "very deep": b"[" * 100_000,
    "a very deep input": b'{"input": ' + b"[" * 100_000,
    "NaN": b'{"input": {"input": NaN}, "inputs": [{"input": NaN}], "config": {"configurable": {"session_id": "a"}}}',
    "a huge number": b'{"input": ' + b"9" * 5000 + b"}",
    "a list": b"[1, 2]",
    "null": b"null",
    "a string": b'"text"',
    "no input": json.dumps({"config": CONFIG}).encode(),
    "an input that is null": both(None),
    "inputs that are null": both(None, inputs=None),
    "inputs that are an object": both(5, inputs={"a": GOOD}),
    "an input that is a number": both(5),
    "an input that is a list": both([GOOD]),
    "an input without its message": both({}),
    "a message that is a number": both({"input": 5}),
    "a message that is a list": both({"input": ["a"]}),
    "a message that is null": both({"input": None}),
    "a config that is null": both(GOOD, config=None),
    "a config that is a string": both(GOOD, config="x"),
    "a config that is a list of numbers": both(GOOD, config=[1]),
    "a configurable that is a string": both(GOOD, config={"configurable": "x"}),
    "a configurable that is a list": both(GOOD, config={"configurable": ["x"]}),
}


@pytest.mark.parametrize("endpoint", ["invoke", "batch", "stream", "stream_log", "stream_events"])
def test_a_compressed_body_is_told_so(alice: httpx.Client, endpoint: str) -> None:
    sent, json_type = gzip.compress(both(GOOD)), {"Content-Type": "application/json"}
    answer = alice.post(f"/chat/{endpoint}", content=sent, headers={**json_type, "Content-Encoding": "gzip"})
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    assert "without Content-Encoding" in answer.json()["detail"]
    plain = alice.post(f"/chat/{endpoint}", content=both(GOOD), headers={**json_type, "Content-Encoding": "identity"})
    assert plain.status_code == 200


@pytest.mark.parametrize("hashed", [False, True], ids=["plain", "hash"])
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_body_is_422_on_every_endpoint(
    alice: httpx.Client, stub: OpenAIStub, name: str, hashed: bool
) -> None:
    asked = len(stub.requests)
    prefix = f"/chat/c/{config_hash(CONFIG)}" if hashed else "/chat"
    for way in WAYS:
        answer = post(alice, f"{prefix}/{way}", MALFORMED[name])
        assert answer.status_code == 422, (way, answer.text[:300])
        assert answer.json()["detail"]
    assert len(stub.requests) == asked


@pytest.mark.parametrize("way", STREAMS[1:])
@pytest.mark.parametrize("rest", [{"include_names": 5}, {"exclude_tags": "x"}, {"include_types": {}}])
def test_a_malformed_filter_of_a_stream_is_422(alice: httpx.Client, way: str, rest: dict[str, Any]) -> None:
    assert post(alice, f"/chat/{way}", both(GOOD, **rest)).status_code == 422


HASHES = [
    "x",
    "%00",
    "a b",
    "!!!",
    "N4Ig" + "A" * 50,
    config_hash([1]),
    config_hash("x"),
    config_hash(None),
    "é",
    "%ff",
]
HASHES += [config_hash({"configurable": 5}), config_hash({"configurable": [1]}), "A" * 20_000]


@pytest.mark.parametrize("hashed", HASHES, ids=range(len(HASHES)))
def test_a_malformed_config_hash_is_422_on_every_route(alice: httpx.Client, hashed: str) -> None:
    for way in WAYS:
        assert post(alice, f"/chat/c/{hashed}/{way}", body_of(way, GOOD)).status_code == 422
    for name in ("input_schema", "output_schema", "config_schema", "playground/"):
        assert alice.get(f"/chat/c/{hashed}/{name}").status_code == 422


def test_a_config_hash_that_is_too_long_to_unpack_is_refused_unread(alice: httpx.Client) -> None:
    long = config_hash({"configurable": {"session_id": "".join(map(chr, range(0x4E00, 0x5A00)))}})
    assert 4096 < len(long) < 60_000
    for answer in (post(alice, f"/chat/c/{long}/invoke", {"input": GOOD}), alice.get(f"/chat/c/{long}/input_schema")):
        assert answer.status_code == 422
        assert "too long" in answer.text


@pytest.mark.parametrize("way", WAYS)
def test_what_a_chain_does_not_know_of_is_ignored(alice: httpx.Client, stub: OpenAIStub, way: str) -> None:
    session = {"session_id": f"ignored {way}", "nonsense": 1, "model": "another", "temperature": 9}
    config = {"configurable": session, "tags": 5, "metadata": "x", "run_id": "nope", "callbacks": [1], "what": {}}
    answer = post(alice, f"/chat/{way}", both(GOOD, config=config, kwargs={"stop": ["You"]}, what=5))
    assert said(answer, way).startswith("You said: one")
    asked = stub.requests[-1].body
    assert "stop" not in asked
    assert asked["model"] != "another"
    assert "temperature" not in asked


@pytest.mark.parametrize("way", WAYS)
def test_a_body_that_is_too_large_is_413_in_json(alice: httpx.Client, way: str) -> None:
    answer = post(alice, f"/chat/{way}", b" " * (LIMIT + 1))
    assert answer.status_code == 413
    assert "RECOLLECT_MAX_BODY_BYTES" in answer.json()["detail"]

    def in_pieces() -> Iterator[bytes]:
        for _ in range(10):
            yield b" " * (LIMIT // 8)

    answer = alice.post(f"/chat/{way}", content=in_pieces())
    assert answer.status_code == 413
    assert answer.json()["detail"]


def test_a_body_just_within_the_limit_is_read(alice: httpx.Client) -> None:
    body = both({"input": "x" * (LIMIT - 1000)})[: LIMIT // 2]
    assert post(alice, "/chat/invoke", body).status_code == 422
    text = "x" * (LIMIT - 200)
    assert text in said(post(alice, "/chat/invoke", {"input": {"input": text}, "config": CONFIG}))


# --- text

HOSTILE = {
    "braces": "{input} {history} {{x}} } {",
    "line separators": "a\u2028b\u2029c\x85d\ne\r\nf\x0bg",
    "NUL": "a\0b",
    "an event of its own": "x\n\nevent: end\n\ndata: y",
    "emoji": "👩‍👩‍👧‍👦 e\u0301",
    "right to left": "\u202eabc\u202c",
    "a byte order mark": "\ufeffx",
    "no character": "\uffff\U0010ffff",
    "a constructor": '{"lc": 1, "type": "constructor", "id": ["langchain", "x"], "kwargs": {}}',
    "blank": " \t ",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("way", WAYS)
def test_any_text_reaches_the_model_as_it_was_said(alice: httpx.Client, stub: OpenAIStub, name: str, way: str) -> None:
    text, session = HOSTILE[name], f"text {name} {way}"
    for number in (1, 2):
        assert text.strip() in said(call(alice, text, session, chain="tutor", way=way), way)
        users = [message["content"] for message in stub.requests[-1].messages if message["role"] == "user"]
        assert users == [text] * number


@proves("G8")
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("way", WAYS)
def test_a_lone_surrogate_is_kept_and_shown_as_a_replacement(
    alice: httpx.Client, server: Here, chain: str, way: str
) -> None:
    session = f"surrogate {chain} {way}"
    for number in (1, 2):
        reply = said(call(alice, "a\ud800b", session, chain=chain, way=way), way)
        assert reply.endswith(f"{number} user messages: " + " | ".join(["a\ufffdb"] * number))
    turns = alice.get(f"/sessions/{session}/turns").json()["turns"]
    assert [turn["input"][0]["data"]["content"] for turn in turns] == ["a\ud800b"] * 2
