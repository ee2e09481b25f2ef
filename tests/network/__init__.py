"""Connections, TLS, proxies, timeouts, on real sockets and through real programs."""
