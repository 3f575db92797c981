"""How often tests of random values try: `RECOLLECT_TEST_EXAMPLES` is 10 in the suite; 100 tries ten times as often."""

from __future__ import annotations

import os
from typing import Final

EXAMPLES: Final = int(os.environ.get("RECOLLECT_TEST_EXAMPLES", "10"))


def tries(number: int) -> int:
    """How often a test tries that tries so often in the suite."""
    return max(1, number * EXAMPLES // 10)
