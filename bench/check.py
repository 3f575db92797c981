"""Whether anything has got worse: by ratios, which machines share, never by seconds, which they don't."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_TOLERANCE = 0.15
_LARGER_IS_WORSE = ("ms_ratio", "processor_ms_ratio", "bytes_ratio")
_PEERS = ("langserve", "example", "frame", "model", "aegra", "langgraph")


def check(results: dict[str, Any], baseline: dict[str, Any]) -> int:
    """Compares Recollect's ratios with those of an earlier run; prints what is worse by more than 15 %, and gives 1."""
    before, status = dict(_ratios(baseline)), 0
    for name, now in _ratios(results):
        if name not in before:
            continue
        change = before[name] / now if name.rpartition(".")[2] in _LARGER_IS_WORSE else now / before[name]
        if change < 1 - _TOLERANCE:
            print(f"worse: {name} was {before[name]:.2f}, is {now:.2f}")
            status = 1
    if status == 0:
        print("No ratio is worse than in the baseline.")
    return status


def _ratios(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """All ratios of Recollect's, by the path to them."""
    for key, item in value.items() if isinstance(value, dict) else ():
        here = f"{name}.{key}" if name else key
        if isinstance(item, dict):
            if key not in _PEERS:
                yield from _ratios(item, here)
        elif name.endswith(".ratios") or key in _LARGER_IS_WORSE:
            yield here, float(item)
