"""Real programs between a client and a server, where they are installed: nginx, haproxy, squid and mitmproxy."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.tls import ELSEWHERE, authority_pem, identity

# What a reverse proxy does with a call is said in its path: `/passed/v1/lexi/chat` is handed on, others are not.
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
    limit_req_zone all zone=one:32k rate=1r/m;
    limit_req_zone all zone=other:32k rate=1r/m;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_buffering {buffering};
    proxy_read_timeout {timeout}ms;
    proxy_next_upstream off;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/identity.pem;
        ssl_certificate_key {folder}/identity.pem;
        root {folder};
        location /v1/ {{ proxy_pass http://127.0.0.1:{upstream}; }}
        location /limited/ {{ limit_req zone=one; limit_req_status 429; proxy_pass http://127.0.0.1:{upstream}; }}
        location /busy/ {{ limit_req zone=other; proxy_pass http://127.0.0.1:{upstream}; }}
        location /small/ {{ client_max_body_size 9; proxy_pass http://127.0.0.1:{upstream}; }}
        location /denied/ {{ deny all; }}
        location /returned/ {{ return 403; }}
        location /portal/ {{ return 302 https://portal.example/login; }}
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
    http-request set-var(txn.denied) path,field(2,/) unless {{ path_end /tasks }}
    {denials}
    server lexi 127.0.0.1:{upstream}
"""

#: What haproxy can put in the place of an answer; with others it refuses to start.
DENIALS = (200, 400, 401, 403, 404, 405, 407, 408, 410, 413, 421, 422, 425, 429, 500, 501, 502, 503, 504)

_SQUID = """
http_port 127.0.0.1:{open} name=open
http_port 127.0.0.1:{locked} name=locked
http_port 127.0.0.1:{shut} name=shut
pid_filename none
hosts_file {folder}/hosts
cache deny all
access_log none
cache_log /dev/null
pinger_enable off
coredump_dir none
connect_timeout 1 second
auth_param basic program /bin/sh {folder}/helper
acl open myportname open
acl locked myportname locked
acl known proxy_auth REQUIRED
http_access allow open
http_access allow locked known
http_access deny all
"""

_SQUID_HELPER = """
while read -r user password; do
    if [ "$user $password" = "clerk hunter2" ]; then echo OK; else echo ERR; fi
done
"""

_CONFIGURATIONS = {"nginx": _NGINX, "haproxy": _HAPROXY}
_BUFFERING = {
    ("nginx", True): "on",
    ("nginx", False): "off",
    ("haproxy", True): "option http-buffer-request",
    ("haproxy", False): "option http-no-delay",
}


def needed(name: str) -> str:
    """Find a program, or skip the test that needs it.

    A mitmproxy that is not on the path is named by `LEADLEX_TEST_MITMDUMP`: it can't be installed beside leadlex.
    """
    named = os.environ.get(f"LEADLEX_TEST_{name.upper()}")
    path = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/opt/homebrew/bin"
    found = shutil.which(named or name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed: tests/install_real_programs.sh")
    return found


@contextlib.contextmanager
def middlebox(
    name: str, upstream: int, folder: Path, *, buffering: bool = False, timeout: float = 10.0
) -> Generator[str]:
    """Run nginx or haproxy in front of a port of this machine, with TLS, and give its URL.

    Args:
        name: `nginx` or `haproxy`.
        upstream: The port behind it.
        folder: Where it may write.
        buffering: Whether it holds back what passes.
        timeout: Seconds after which it gives up a silent server.
    """
    port = free_port()
    (folder / "identity.pem").write_bytes(identity().certificate)
    rule = "http-response deny deny_status {0} if {{ var(txn.denied) -m str {0} }}"
    text = _CONFIGURATIONS[name].format(
        folder=folder,
        port=port,
        upstream=upstream,
        buffering=_BUFFERING[name, buffering],
        denials="\n    ".join(map(rule.format, DENIALS)),
        timeout=int(timeout * 1000),
    )
    (folder / "configuration").write_text(text)
    flags = {"nginx": ["-p", str(folder), "-c"], "haproxy": ["-db", "-f"]}[name]
    with _running([needed(name), *flags, str(folder / "configuration")], port, folder):
        yield f"https://127.0.0.1:{port}"


class Squid(NamedTuple):
    """The ports of a squid: one for all, one for who has a password, one for nobody."""

    open: int
    locked: int
    shut: int


def squid_ports() -> Squid:
    """Choose ports, at which a squid can be started, killed and started again."""
    return Squid(free_port(), free_port(), free_port())


@contextlib.contextmanager
def squid(ports: Squid) -> Generator[Squid]:
    """Run a forward proxy, which `clerk` may use with the password `hunter2`; at the end it is killed."""
    program = needed("squid")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)  # started by root, squid becomes another user
        (folder / "helper").write_text(_SQUID_HELPER)
        (folder / "hosts").write_text(f"127.0.0.1 {ELSEWHERE}\n")
        (folder / "configuration").write_text(_SQUID.format(folder=folder, **ports._asdict()))
        with _running([program, "-N", "-f", str(folder / "configuration")], ports.open, folder):
            yield ports


@contextlib.contextmanager
def mitmproxy(folder: Path) -> Generator[int]:
    """Run a proxy that inspects TLS, and give its port; `mitmproxy-ca-cert.pem` in the folder is its authority.

    What it does with an answer is said in the call's path, as `tests/support/inspection.py` reads it.
    """
    port, program = free_port(), needed("mitmdump")
    (folder / "upstream.pem").write_bytes(authority_pem())
    options = {"confdir": folder, "ssl_verify_upstream_trusted_ca": folder / "upstream.pem", "flow_detail": 0}
    words = [f"--set={name}={value}" for name, value in options.items()]
    script = Path(__file__).with_name("inspection.py")
    with _running([program, *words, "--listen-host=127.0.0.1", f"-p{port}", "-s", str(script)], port, folder):
        yield port


@contextlib.contextmanager
def _running(words: list[str], port: int, folder: Path) -> Generator[None]:
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_until_it_listens(process, port, folder)
            yield
        finally:
            process.kill()
            process.wait(10)


def free_port() -> int:
    """Find a port at which nobody listens, of those that no system gives to who asks for any."""
    for port in random.sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError((folder / "output").read_text())
