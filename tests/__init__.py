"""The tests of leadlex, and where to find the one of a promise.

The folders are the library's layers (`tests/architecture.py` says which imports which):

- `values/`: what the service sends becomes values that hold what was sent.
- `protocol/`: the checks of arguments, JSON, the decoder of event streams, and fuzzing of all three.
- `policy/`: what is tried again and after how long, the retry quota, what a replay continues, an outage, listings that
  move while they are read.
- `network/`: bodies and clocks, aiohttp, the environment's proxies and certificates, squid, mitmproxy, nginx, haproxy.
- `portal/`: the sync client's thread and loop, its generator; gevent, gunicorn, Celery, and forks in C.
- `sandbox/`, `cli/`: those two apps; `test_pytest_plugin.py`: one more. `test_webhooks.py`: webhooks.

What goes through all layers stands beside them:

- What people build upon it, web endpoints, pages and agents' tools: `recipes/`; streams on the wire: `test_sse.py`.
- Handles: `test_streams.py`, `test_handles.py`, `test_threads.py`; in any order, while clocks jump: `test_states.py`.
- Errors, their charge, their advice: `test_errors.py`, `test_advice.py`, `test_celery.py`; secrets: `test_secrets.py`.
- Public names, docstrings, types: `test_public.py`, `test_typing/`; the README: `test_readme.py`.
- API keys that change: `test_api_key.py`.
- The log beside an application's own: `test_logging.py`.
- The layers: `test_architecture.py`; how many frames a call goes through: `test_benchmarks.py`; what else is installed:
  `test_dependencies.py`.
- A first conversation, on both clients: `test_conversation.py`.

`matrix/` has a test for each fault of the fault matrix, by row: A connecting, B TLS, C HTTP, D statuses, E framing,
F events, G time, H pages, I concurrency, J processes, K clocks, L hostile input. `pytest -m row` names them, and each
run ends with how many rows passed.

`support/` is what the tests stand on: the scripted server and its ledger (`server.py`, `lexi.py`), one scenario on
every client (`runners.py`), clocks that are turned (`times.py`), what a process finds around it (`surroundings.py`),
leaks (`resources.py`); `test_support.py` tests it.

`python -m tests` runs all of it with the linters, `python -m tests -k name` one test, at once; what takes minutes is
marked `heavy` and runs with `-m heavy`.
"""
