"""Recall over long conversations: what it adds to a turn, and how often the fact that is asked for is shown."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random
from statistics import median

from langchain_core.messages import AIMessage, HumanMessage

from bench.parts import Bench, Result, table
from bench.prefill import fill, turns
from bench.stores import NO_SERVER, STORES
from bench.subjects import USER
from histories import open_store
from histories.base import HistoryStore, Turn
from turns.recall import chosen

_BUDGET, _FOUND = 1_500, 12
"""What a turn is shown at most: tokens, and exchanges."""
_WINDOW = 20
"""Turns at the end of a conversation that a window shows anyway: no fact is planted there."""

_WARM_UP = 20
"""Recalls before those that are measured: who begins reads the session, and one that is long with several of them."""

_NAMES = ("Ines", "Tomasz", "Yuki", "Farid", "Greta")

#: What was said; a question with its words; one with others.
_FACTS = (
    (
        "My sister {n} moved to Porto in spring.",
        "Where did my sister {n} move in spring?",
        "In which city does {n} live?",
    ),
    ("{n} is allergic to peanuts and carries a pen.", "What is {n} allergic to?", "What must I not cook for {n}?"),
    ("I lent {n} my blue bicycle for the summer.", "Who did I lend my blue bicycle to: {n}?", "What did {n} borrow?"),
    (
        "{n}'s exam in organic chemistry is on Friday.",
        "When is {n}'s exam in organic chemistry?",
        "On what day is {n} tested?",
    ),
    (
        "The password hint of {n} is the old lighthouse.",
        "What is the password hint of {n}?",
        "What reminds {n} of the login?",
    ),
    ("{n} works as a vet in a clinic near the harbour.", "Where does {n} work as a vet?", "What is the job of {n}?"),
    (
        "We meet {n} at the station at half past six.",
        "When do we meet {n} at the station?",
        "What time should I be there for {n}?",
    ),
    (
        "{n} ordered the oak table with rounded corners.",
        "Which table did {n} order?",
        "What furniture is {n} waiting for?",
    ),
    ("The cat of {n} is called Biscuit.", "What is the cat of {n} called?", "What is the name of the pet of {n}?"),
    ("{n} hates flying and takes the night train.", "What does {n} hate, and take instead?", "How does {n} travel?"),
)

_TOPICS = ("tax", "bread", "football", "rust", "violins", "the moon", "tea", "chess", "gardens", "glaciers", "maps")
_VERBS = ("explain", "compare", "summarise", "sketch", "list", "criticise", "date", "measure")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and the turn that has its answer."""

    question: str
    turn_id: str
    kind: str


def conversation(count: int, facts: int) -> tuple[list[Turn], list[Asked]]:
    """So many turns about many things, with facts among them; the questions about those."""
    random, made, asked = Random(17), turns(count), list[Asked]()
    all_facts = list(product(_FACTS, _NAMES))
    for place in range(count):
        words = f"{random.choice(_VERBS)} {random.choice(_TOPICS)} and {random.choice(_TOPICS)}, part {place}"
        said = [HumanMessage(f"Please {words}.")], [AIMessage(f"Here is what there is to say: {words}. " * 4)]
        made[place] = replace(made[place], input=said[0], output=said[1])
    places = random.sample(range(max(1, count - _WINDOW)), facts)
    for place, (fact, name) in zip(places, random.sample(all_facts, facts), strict=True):
        said_so, verbatim, paraphrased = (text.format(n=name) for text in fact)
        made[place] = replace(made[place], input=[HumanMessage(said_so)], output=[AIMessage("Noted, thank you.")])
        asked += [Asked(verbatim, made[place].turn_id, "verbatim"), Asked(paraphrased, made[place].turn_id, "other")]
    return made, asked


async def ask(store: HistoryStore, session: str, asked: list[Asked], last: set[str], times: int) -> dict[str, float]:
    """Milliseconds of a recall, and the share of questions whose fact is shown, of each kind."""
    took, found = list[float](), dict[str, list[bool]]()
    exclude = {(session, turn_id) for turn_id in last}
    for _ in range(_WARM_UP):
        await store.recall(USER, asked[0].question, session_id=session, exclude=exclude)
    for number in range(times):
        one = asked[number % len(asked)]
        started = time.perf_counter()
        turns_found = await store.recall(USER, one.question, session_id=session, exclude=exclude, limit=_FOUND)
        shown = chosen(turns_found, one.question, _BUDGET)
        took.append((time.perf_counter() - started) * 1000)
        if number < len(asked):
            found.setdefault(one.kind, []).append(any(each.turn.turn_id == one.turn_id for each, _ in shown))
    took.sort()
    shares = {kind: sum(hits) / len(hits) for kind, hits in found.items()}
    return {"p50_ms": median(took), "p99_ms": took[int(len(took) * 0.99)], **shares}


def measure(bench: Bench) -> Result:
    """Over each store at hand, in this process: conversations of 100, 1,000 and 10,000 turns."""
    times, result = 200 if bench.quick else 1000, Result()
    for name, start in STORES.items():
        with ExitStack() as stack:
            try:
                url = stack.enter_context(start())
            except NO_SERVER as reason:
                print(f"{name} is left out: {reason}")
                continue
            result[name] = asyncio.run(_over(url, bench.place(), times))
    rows = [
        [name, count, *_cells(one, by_count["100"]["p50_ms"])]
        for name, by_count in result.items()
        for count, one in by_count.items()
    ]
    heads = ["store", "turns", "p50 ms", "p99 ms", "x 100 turns", "verbatim", "in other words", "first q= ms"]
    table([*heads, "all of it ms", "list ms"], rows)
    return result


def _cells(one: dict[str, float], base: float) -> list[str]:
    times = [f"{one['p50_ms']:.2f}", f"{one['p99_ms']:.2f}", f"{one['p50_ms'] / base:.2f}"]
    shares = [f"{one['verbatim']:.0%}", f"{one['other']:.0%}"]
    return [*times, *shares, *(f"{one[name]:.1f}" for name in ("first_search_ms", "whole_search_ms", "list_ms"))]


async def _over(url: str, folder: Path, times: int) -> Result:
    found = Result()
    for count in (100, 1000, 10_000):
        session, (made, asked) = f"s{count}", conversation(count, 20)
        await asyncio.to_thread(fill, folder, [(session, made)], store=url)
        looked = await _looked(url, folder)  # all is in the index of the store then
        store = open_store(url, default_dir=str(folder / "histories"))
        await store.open()
        last = {turn.turn_id for turn in made[-_WINDOW:]}
        found[str(count)] = looked | await ask(store, session, asked, last, times)
        await store.close()
    return found


async def _looked(url: str, folder: Path) -> dict[str, float]:
    """Milliseconds of the first search of who opens a store, of all of its pages, and of a list."""
    store = open_store(url, default_dir=str(folder / "histories"))
    await store.open()
    started = time.perf_counter()
    page = await store.sessions(USER, query="lighthouse")
    searched = time.perf_counter()
    while page.next is not None:
        page = await store.sessions(USER, query="lighthouse", cursor=page.next)
    whole = time.perf_counter()
    await store.sessions(USER)
    listed = time.perf_counter()
    await store.close()
    return {
        "first_search_ms": (searched - started) * 1000,
        "whole_search_ms": (whole - started) * 1000,
        "list_ms": (listed - whole) * 1000,
    }
