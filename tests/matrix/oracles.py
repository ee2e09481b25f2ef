"""The nine oracles of the fault matrix: what holds in every row, whatever goes wrong.

    server = ScriptedServer(spoiled("chat", Lost(), times=1))
    seen = observe(runner, "chat", server)
    seen.expect(APIConnectionError, charged="unknown", attempts=1)

`observe` makes one logical call and checks O1 to O8 around it. O9 (sync and async agree, asyncio and trio agree) is
what `expect` proves when a test runs with each `runner`: all are held to the same class, partial and `charged`.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import itertools
import logging
import pickle
import re
import time
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

from leadlex import LeadLexError, RetryPolicy, StreamInterruptedError, TextDelta, Timeout
from tests.support.captures import CAPTURE_TEXT
from tests.support.journal import Watched
from tests.support.lexi import Fault, LexiScript
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import API_KEY, Runner
from tests.support.server import Connection, Script
from tests.support.tls import identity

Call = Literal["get", "chat", "stream"]
"""The three columns of the retry table: a GET, a call without an idempotency key, a call with one."""

CALLS: Final[tuple[Call, ...]] = ("get", "chat", "stream")

#: How often a fault is met by a call that may repeat it only where that costs nothing, or where the service knows a
#: repetition; and what is known of the charge once the request was sent.
REPEATED: Final[dict[Call, int]] = {"get": 3, "chat": 1, "stream": 3}
CHARGED: Final[dict[Call, str]] = {"get": "no", "chat": "unknown", "stream": "unknown"}

#: Clocks that no healthy answer meets, and backoffs that nobody waits for.
PATIENT: Final = Timeout(connect=5, write=5, pool=5, first_event=5, idle=5, event_idle=5, total=8)
AT_ONCE: Final = RetryPolicy(retries=2, base=0.01, throttle_base=0.01, floor=0.01)

#: O2 in the specification is a quarter of a second; the rest is for a machine that does other things too.
SLACK: Final = 1.25
#: O8, in bytes.
MEMORY: Final = 32 << 20

_TESTS = str(Path(__file__).parents[1])
_numbers = itertools.count(1)


def spoiled(call: Call, *faults: Fault, times: int = 1, **options: Any) -> LexiScript:
    """Make a Lexi that spoils the first answers to one kind of call and is well afterwards.

    Args:
        call: Which kind.
        faults: What happens, in turn.
        times: How often; more or fewer attempts than these make the test fail.
        options: Further ones of `LexiScript`.
    """
    place = {"get": "other_fault", "chat": "chat_fault", "stream": "stream_fault"}[call]
    given: dict[str, Any] = {place: faults, "times": times, **options}
    return LexiScript(**given)


def over_tls(script: Script) -> Script:
    """Shake hands, with a certificate that is good, before a script begins."""

    def run(connection: Connection) -> None:
        connection.start_tls(identity())
        script(connection)

    return run


# Calls -------------------------------------------------------------------------------------------------------------


async def _get(lexi: Any, seen: Seen) -> Any:
    return await lexi.conversation("conv_01HY1")


async def _chat(lexi: Any, seen: Seen) -> Any:
    return await lexi.chat(seen.message)


async def _stream(lexi: Any, seen: Seen) -> Any:
    async with lexi.stream_chat(seen.message) as stream:
        try:
            async for event in stream:
                seen.events.append(event)
            return await stream.final_reply()
        finally:
            seen.charged, seen.resumes = stream.charged, stream.resumes


_MAKE: dict[Call, Callable[[Any, Seen], Coroutine[Any, Any, Any]]] = {"get": _get, "chat": _chat, "stream": _stream}


@dataclasses.dataclass(eq=False)
class Seen:
    """What the caller of one logical call saw.

    Args:
        call: Which kind it was.
        message: What was asked; the ledger knows the call by it.
        events: What a stream handed out.
        value: What came back.
        error: What was raised instead.
        charged: What a stream says of itself at its end.
        resumes: How often a stream was continued.
        attempts: How often it was tried, by the log.
        seconds: How long it took.
    """

    call: Call
    message: str = dataclasses.field(default_factory=lambda: f"Privileged matter {next(_numbers)}")
    events: list[Any] = dataclasses.field(default_factory=list[Any])
    value: Any = None
    error: Exception | None = None
    charged: str | None = None
    resumes: int = 0
    attempts: int = 0
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """Join the text that a stream handed out."""
        return "".join(event.delta for event in self.events if isinstance(event, TextDelta))

    def expect(
        self,
        kind: type[LeadLexError] | None,
        *,
        charged: str | None = None,
        attempts: int | None = None,
        text: str | None = None,
        says: str | None = None,
        **attributes: object,
    ) -> None:
        """Assert how the call ended.

        Args:
            kind: The class of the error, exactly; None for success.
            charged: What the error says.
            attempts: How often the call was tried.
            text: What a stream had handed out.
            says: A pattern that the error's words match.
            attributes: The error's own.
        """
        assert type(self.error) is (kind or type(None)), repr(self.error)
        if text is not None:
            assert self.text == text
        if charged is not None and isinstance(self.error, LeadLexError):
            assert self.error.charged == charged, str(self.error)
        if says is not None:
            assert re.search(says, str(self.error)), str(self.error)
        for name, value in attributes.items():
            assert getattr(self.error, name) == value, name
        assert attempts in (None, self.attempts), f"tried {self.attempts} times: {self.error}"


def observe(  # a row differs in any of these
    runner: Runner,
    call: Call,
    server: Watched | None = None,
    *,
    truth: str = CAPTURE_TEXT,
    deadline: float = 8.0,
    memory: int = 0,
    message: str | None = None,
    around: Callable[[Any], contextlib.AbstractAsyncContextManager[object]] | None = None,
    healed: Callable[[], contextlib.AbstractContextManager[object]] | None = contextlib.nullcontext,
    **options: Any,
) -> Seen:
    """Make one call, then a second one that must go well, and check oracles O1 to O8.

    Args:
        runner: How leadlex is used.
        call: Which kind of call.
        server: Whose ledger tells what was charged, and where the client calls unless `base_url` is given.
        truth: The text that a stream should say.
        deadline: Seconds that the call may take.
        memory: Bytes of the configured caps that the call may fill on top of O8's own.
        message: What is asked; without one, one of its own for each call.
        around: Given the client, holds the fault in place around the first call.
        healed: Holds the world well around the second call; None where nothing can, and there is no second call.
        options: The client's.

    Raises:
        AssertionError: An oracle says no.
    """
    seen = Seen(call) if message is None else Seen(call, message)
    log = Log()
    options = {"base_url": getattr(server, "url", None), "timeout": PATIENT, "retries": AT_ONCE, **options}

    async def scenario(lexi: Any) -> None:
        with peak_memory_below(MEMORY + memory):  # O8
            async with around(lexi) if around else contextlib.nullcontext():
                await attempt(lexi, seen)
        if healed is not None:
            with healed():
                assert await lexi.tasks(), "O7: another call's answer"

    with no_leaks(), must_not_hang(deadline + 4), log.collected():  # O4, and the rest of O2
        runner.run(scenario, **options)
        gc.collect(1)  # what the call made; all of it would take as long as the call
    seen.attempts = log.attempts(call)
    _check_end(seen, deadline, log.lines)
    if server is not None:
        check_ledger(server, seen)
    if call == "stream":
        check_text(seen, truth)
    return seen


async def attempt(lexi: Any, seen: Seen) -> None:
    """Make the call and keep how it ended."""
    began = time.monotonic()
    try:
        seen.value = await _MAKE[seen.call](lexi, seen)
    except Exception as error:  # noqa: BLE001  # O1 looks at it
        seen.error = error
    seen.seconds = time.monotonic() - began


def _check_end(seen: Seen, deadline: float, lines: Sequence[str]) -> None:
    assert seen.seconds < deadline + SLACK, f"O2: took {seen.seconds:.2f} s of {deadline}"
    if seen.error is not None:
        assert isinstance(seen.error, LeadLexError), f"O1: {seen.error!r} is foreign"
    check_secrets(lines, seen.error, seen.message)


# Oracles -----------------------------------------------------------------------------------------------------------


def check_ledger(server: Watched, seen: Seen) -> None:
    """Check O3: charged once at most, and never otherwise than the error says."""
    times = server.ledger.by_call[seen.message]
    assert times <= 1, f"O3: charged {times} times"
    told = {seen.charged, getattr(seen.error, "charged", None)} - {None}
    if seen.call == "stream" and isinstance(seen.error, LeadLexError):
        assert seen.error.charged == seen.charged, "O3: the error and the stream disagree"
    assert not (times and "no" in told), f"O3: it was charged, and is said not to be: {seen.error}"
    assert times or "yes" not in told, f"O3: it was not charged, and is said to be: {seen.error}"
    assert seen.call != "get" or told <= {"no"}, "O3: a GET costs nothing"


def check_text(seen: Seen, truth: str) -> None:
    """Check O5: what was handed out is the beginning of the truth, and all of it after a success."""
    assert truth.startswith(seen.text), f"O5: {seen.text!r} is no prefix"
    if seen.error is None:
        assert seen.text == seen.value.response == truth, "O5: half an answer was taken for a whole one"
    elif isinstance(seen.error, LeadLexError):
        partial = seen.error.partial
        assert (partial.response if partial else "") == seen.text, "O5: .partial is not what was handed out"
    if isinstance(seen.error, StreamInterruptedError):
        assert seen.error.idempotency_key


def check_secrets(lines: Sequence[str], error: BaseException | None, *secrets: str) -> None:
    """Check O6: the key and the message's text are in no log record, error, pickle or captured local."""
    told = {"logs": "\n".join(lines), "error": "\n".join(shown(error)) if error else ""}
    for place, text in told.items():
        for secret in (API_KEY, *secrets):
            assert secret not in text, f"O6: a secret in the {place}: {_around(text, secret)}"


def shown(error: BaseException) -> Iterator[str]:
    """Give all that an error shows of itself: words, repr, pickle, attributes, causes, and locals of its frames."""
    yield from (str(error), repr(error))
    if isinstance(error, LeadLexError):
        dumped = pickle.dumps(error)
        again = pickle.loads(dumped)  # noqa: S301  # made one line above
        assert (type(again), str(again), str(copy.copy(error))) == (type(error), str(error), str(error))
        yield repr(dumped)
        yield repr(vars(error))
    for each in chain_of(error):
        yield repr(each)
        yield from locals_of(each.__traceback__)


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Give an exception with all that caused it."""
    found: dict[int, BaseException] = {}
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in found:
            found[id(each)] = each
            waiting += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]
    yield from found.values()


def locals_of(trace: TracebackType | None) -> Iterator[str]:
    """Give the locals of every frame but the tests' own, as error reporters capture them."""
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(_TESTS):
            yield from (
                f"{trace.tb_frame.f_code.co_qualname}: {name}={_repr(value)}"
                for name, value in trace.tb_frame.f_locals.items()
            )
        trace = trace.tb_next


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001  # as traceback does
        return "<no repr>"


def _around(text: str, secret: str) -> str:
    at = text.index(secret)
    return text[max(0, at - 120) : at + 40]


# Instruments -------------------------------------------------------------------------------------------------------


class Log(logging.Handler):
    """Collect every record of every logger at every level, as words and as data."""

    def __init__(self) -> None:
        super().__init__(level=1)
        self.lines: list[str] = []
        self._tried: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.lines.append(f"{record.getMessage()} {vars(record)}")
        fields = getattr(record, "leadlex", {})
        if "attempt" in fields:
            self._tried[fields["operation"]] = fields["attempt"]

    def attempts(self, call: Call) -> int:
        """Tell how often a call was tried; 0 where it did not come to that."""
        return self._tried.get({"get": "conversation", "chat": "chat", "stream": "stream_chat"}[call], 0)

    @contextlib.contextmanager
    def collected(self) -> Generator[None]:
        """Collect in a block."""
        root = logging.getLogger()
        level = root.level
        root.addHandler(self)
        root.setLevel(1)
        try:
            yield
        finally:
            root.setLevel(level)
            root.removeHandler(self)


@contextlib.contextmanager
def peak_memory_below(limit: int) -> Generator[None]:
    """Check that a block's resident memory never grows by more than `limit` bytes; on Linux, which counts that."""
    before = _reset_peak()
    yield
    grown = _peak() - before
    assert grown < limit, f"O8: grew by {grown >> 20} MiB"


def _reset_peak() -> int:
    # proc(5), /proc/pid/clear_refs: 5 sets the peak to what is resident now.
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) << 10 if found else 0
