"""`server.py` as a process that may open so many files and no more: `FEW_FILES` of the environment says how many."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

if __name__ == "__main__":
    files = int(os.environ.pop("FEW_FILES"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    server = Path(__file__).resolve().parent.parent.parent / "server.py"
    os.execv(sys.executable, [sys.executable, str(server)])
