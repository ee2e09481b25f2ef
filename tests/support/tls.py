"""Certificates of every kind that a client must accept or refuse."""

import dataclasses
import datetime as dt
import functools
import ssl
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Literal

import trustme

#: `functools.cache` alone makes two authorities when two threads are the first to ask.
_making = threading.RLock()

#: A name that only the tests' proxies know; to them it is this machine.
ELSEWHERE = "lexi.example"

Kind = Literal["good", "unknown_ca", "wrong_name", "expired", "old_tls"]


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """A server's certificate with its key, as PEM, so that it travels to another process.

    Args:
        certificate: The key and the chain.
        old: Whether the server speaks nothing newer than TLS 1.1.
    """

    certificate: bytes
    old: bool = False

    def context(self) -> ssl.SSLContext:
        """Make the context that a server wraps its connections in."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "identity.pem")
            file.write_bytes(self.certificate)
            context.load_cert_chain(file)
        if self.old:
            _speak_old_tls(context)
        return context


def _speak_old_tls(context: ssl.SSLContext) -> None:
    # OpenSSL 3 counts TLS 1.0 and 1.1 among what its level 0 alone allows.
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1


def authority() -> trustme.CA:
    """Make the authority that the tests trust, once per process.

    A script in another process has another one: give it the `Identity` that it is to use.
    """
    with _making:
        return _authority()


@functools.cache
def _authority() -> trustme.CA:
    return trustme.CA()


def authority_pem() -> bytes:
    """Give the trusted authority's certificate, for a file that `SSL_CERT_FILE` names."""
    return authority().cert_pem.bytes()


def client_context() -> ssl.SSLContext:
    """Make a client's context that trusts the authority and nothing else."""
    return ssl.create_default_context(cadata=authority_pem().decode())


def identity(kind: Kind = "good") -> Identity:
    """Issue a certificate for this machine and for `ELSEWHERE`, or one with the fault that `kind` names."""
    with _making:
        return _identity(kind)


@functools.cache
def _identity(kind: Kind) -> Identity:
    issuer = trustme.CA() if kind == "unknown_ca" else authority()
    names = ("elsewhere.example",) if kind == "wrong_name" else ("localhost", "127.0.0.1", ELSEWHERE)
    certificate = issuer.issue_cert(
        *names, not_before=_days_ago(9), not_after=_days_ago(1 if kind == "expired" else -9)
    )
    return Identity(certificate.private_key_and_cert_chain_pem.bytes(), old=kind == "old_tls")


def _days_ago(days: int) -> dt.datetime:
    return dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
