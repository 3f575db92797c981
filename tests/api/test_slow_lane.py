"""Large bodies: how much they hold is known before any of it is made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import slow_lane
from api.slow_lane import MOST_VALUES, least_values
from tests.echo_model import EchoModel
from tests.live_server import langserve_warns, serve_here

pytestmark = langserve_warns
_WORDS = st.text(st.sampled_from('ab,"\\[{}]:é'), max_size=8)
_VALUES = st.recursive(
    st.none() | st.integers() | _WORDS, lambda inner: st.lists(inner) | st.dictionaries(_WORDS, inner), max_leaves=30
)
_MANY: dict[str, Callable[[], Any]] = {
    "numbers": lambda: [0] * 1_000_000,
    "lists": lambda: [[]] * 900_000,
    "objects": lambda: [{}] * 900_000,
    "words": lambda: ["a"] * 700_000,
    "messages": lambda: [{"type": "human", "content": "x"}] * 80_000,
    "names": lambda: {str(number): 0 for number in range(250_000)},
}
_FEW: dict[str, Callable[[], Any]] = {
    "a long text of commas, quotes and brackets": lambda: 'a, [b], {"c"} \\ ' * 150_000,
    "texts": lambda: ['one, "two" [three], {four}\\'] * 15_000,
    "a picture": lambda: [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 3_000_000}}],
}


def _count(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_count, inner))


@given(_VALUES, st.booleans())
def test_no_more_values_are_counted_than_there_are(value: Any, ascii_only: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slow_lane, "_FEW", 0)
        assert least_values(json.dumps(value, ensure_ascii=ascii_only).encode()) <= _count(value)


@pytest.mark.parametrize("kind", _MANY)
def test_many_values_are_seen_in_the_bytes(kind: str) -> None:
    value = _MANY[kind]()
    body = json.dumps(value).encode()
    assert MOST_VALUES < least_values(body) <= _count(value)


def test_a_body_of_many_values_is_refused_and_one_that_is_merely_long_is_taken(tmp_path: Path) -> None:
    with serve_here(tmp_path, model=EchoModel(), history_url="memory:") as server, server.client() as client:
        for kind, made in (_MANY | _FEW).items():
            value = made()
            body = {"input": {"input": "x", "more": value}, "config": {"configurable": {"session_id": "s"}}}
            answer = client.post("/chat/invoke", json=body)
            assert answer.status_code == (422 if kind in _MANY else 200), kind
            renamed = client.patch("/sessions/s", json={"title": "x", "more": value})
            assert renamed.status_code == 422 or kind in _FEW, kind
            if kind in _MANY:
                assert f"more than {MOST_VALUES} values" in renamed.text
                assert f"more than {MOST_VALUES} values" in answer.text
