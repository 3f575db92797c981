"""Two and three things in one instant, on every store; `make torture ARGS="--coincidences 1000"` is the long form."""

from __future__ import annotations

import random

import pytest

from tests.proofs import proves
from tests.stores import Stores
from tests.torture.coincidences import PAIRS, TRIPLES, coincide

_TRIPLES = 12


@proves("G3")
@pytest.mark.parametrize("seed", [0])
async def test_whatever_comes_together_in_one_instant_ends(stores: Stores, seed: int) -> None:
    store = await stores.open()
    some = random.Random(seed).sample(TRIPLES, _TRIPLES)
    assert await coincide(store, [*PAIRS, *some]) == len(PAIRS) + _TRIPLES
