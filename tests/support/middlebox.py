"""Real reverse proxies between a client and a server: nginx and haproxy, where they are installed."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

from tests.support.tls import identity

_NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/identity.pem;
        ssl_certificate_key {folder}/identity.pem;
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_buffering {buffering};
            proxy_read_timeout {timeout}ms;
            proxy_next_upstream off;
        }}
    }}
}}
"""

_HAPROXY = """
global
    maxconn 64
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server {timeout}ms
    retries 0
    option http-server-close
    {buffering}
frontend front
    bind 127.0.0.1:{port} ssl crt {folder}/identity.pem
    default_backend back
backend back
    server lexi 127.0.0.1:{upstream}
"""

_CONFIGURATIONS = {"nginx": _NGINX, "haproxy": _HAPROXY}
_BUFFERING = {
    ("nginx", True): "on",
    ("nginx", False): "off",
    ("haproxy", True): "option http-buffer-request",
    ("haproxy", False): "option http-no-delay",
}


def installed(name: str) -> bool:
    """Tell whether the program is there."""
    return _program(name) is not None


def _program(name: str) -> str | None:
    return shutil.which(name, path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/opt/homebrew/bin")


@contextlib.contextmanager
def middlebox(
    name: str, upstream: int, folder: Path, *, buffering: bool = False, timeout: float = 10.0
) -> Generator[str]:
    """Run the program in front of a port of this machine, with TLS, and give its URL.

    Args:
        name: `nginx` or `haproxy`.
        upstream: The port behind it.
        folder: Where it may write.
        buffering: Whether it holds back what passes.
        timeout: Seconds after which it gives up a silent server.
    """
    port = _free_port()
    (folder / "identity.pem").write_bytes(identity().certificate)
    text = _CONFIGURATIONS[name].format(
        folder=folder,
        port=port,
        upstream=upstream,
        buffering=_BUFFERING[name, buffering],
        timeout=int(timeout * 1000),
    )
    (folder / "configuration").write_text(text)
    flags = {"nginx": ["-p", str(folder), "-c"], "haproxy": ["-db", "-f"]}[name]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [_program(name) or name, *flags, str(folder / "configuration")], stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _wait_until_it_listens(process, port, folder)
            yield f"https://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError((folder / "output").read_text())
