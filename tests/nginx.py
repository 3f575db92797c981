"""Debian's nginx with TLS, in front of a server, under a prefix."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from serving import bind
from tests.live_server import wait_for

_CONF = """
pid {folder}/nginx.pid;
daemon off;
worker_processes 1;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/tls.crt;
    ssl_certificate_key {folder}/tls.pem;
    client_max_body_size 0;
    location {prefix}/ {{
      proxy_pass {upstream}{tail};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
    location / {{ return 418; }}
  }}
}}
"""


@contextmanager
def proxied(folder: Path, upstream: str, prefix: str, *, stripped: bool = True) -> Iterator[str]:
    """The URL of a proxy that shows `upstream` under the prefix, over https; anything else there is 418."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        if os.environ.get("CI") == "true":
            raise RuntimeError("nginx is missing (Debian: apt install nginx-light)")
        pytest.skip("nginx is not installed (Debian: apt install nginx-light)")
    folder.mkdir()
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/tls.pem", "-out", f"{folder}/tls.crt"]
    subprocess.run([*make, *names], check=True, capture_output=True)
    tail = "/" if stripped else ""
    conf = _CONF.format(folder=folder, port=port, prefix=prefix, upstream=upstream, tail=tail)
    (folder / "nginx.conf").write_text(conf)
    url = f"https://127.0.0.1:{port}"
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen([nginx, "-c", str(folder / "nginx.conf"), "-p", str(folder)], stderr=stderr)
    try:
        with httpx.Client(verify=trusting(folder)) as client:
            wait_for(lambda: _answers(client, url), "nginx")
        yield url + prefix
    finally:
        process.terminate()
        process.wait(10)


def trusting(folder: Path) -> ssl.SSLContext:
    """For clients: the certificate of that proxy is good."""
    return ssl.create_default_context(cafile=str(folder / "tls.crt"))


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == 418
    except httpx.TransportError:
        return False
