"""How much tests try: `RECOLLECT_TEST_EXAMPLES` is 10 in the suite; with 100, random values come ten times as often,
and the long forms run, too. CI has a quarter of an hour.
"""

from __future__ import annotations

import os
from typing import Final

EXAMPLES: Final = int(os.environ.get("RECOLLECT_TEST_EXAMPLES", "10"))

LONG: Final = EXAMPLES >= 100


def tries(number: int) -> int:
    """How often a test tries that tries so often in the suite."""
    return max(1, number * EXAMPLES // 10)
