"""The chains that are served: each is a file in this folder that defines `CHAIN`.

`load_chains` finds them all, here and where the operator says; a file without a `CHAIN` is a part of the machinery.
"""

from chains.chain import BadChain, Chain
from chains.loading import described, load_chains

__all__ = ["BadChain", "Chain", "described", "load_chains"]
