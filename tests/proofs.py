"""Which guarantee of docs/guarantees.md a test proves: `@proves("G3")`. `make test ARGS="-m proves"` runs them all."""

from __future__ import annotations

from typing import Final

import pytest

GUARANTEES: Final = tuple(f"G{number}" for number in range(1, 15))


def proves(*guarantees: str) -> pytest.MarkDecorator:
    """Marks a test that fails when one of these guarantees does not hold."""
    if not guarantees or set(guarantees) - set(GUARANTEES):
        raise ValueError(f"there are {GUARANTEES[0]} to {GUARANTEES[-1]}, not {', '.join(guarantees)}")
    return pytest.mark.proves(*guarantees)
