"""The long form: `python -m tests.fuzz [--outputs 2000] [--first 0]`. It exits with 1 if anything was found."""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

from tests.fuzz.world import throw

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Throws outputs of every kind at a server.")
    parser.add_argument("--outputs", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="the number to begin with: each stands for one output")
    parser.add_argument("--history-url", default="file:")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        found = throw(options.outputs, Path(folder), first=options.first, history_url=options.history_url)
    print(*found.faults, found, sep="\n")
    sys.exit(bool(found.faults) or max(found.waits) > 1)
