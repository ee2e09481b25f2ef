"""The sync client is what the generator makes of the async modules, whole, and nothing is guessed."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import leadlex
from leadlex._portal import generator
from leadlex._portal.generator import OMITTED, RENAMED, SOURCES, TARGET, UnknownShape
from tests.architecture import ROOT

GENERATED = generator.generate(generator.read_module)
TWINS = {name: RENAMED[name] for name in SOURCES}


def test_the_sync_client_is_what_the_generator_makes() -> None:
    """The file is compared whole: a line that was added, changed or cut by hand is found."""
    assert generator.problem() is None


@pytest.mark.parametrize("words", [("format", "--check"), ("check",)], ids=" ".join)
def test_the_linter_finds_nothing(words: tuple[str, ...]) -> None:
    """What is generated needs no formatter behind it."""
    command = [sys.executable, "-m", "ruff", *words, "--stdin-filename", str(TARGET), "-"]
    run = subprocess.run(command, cwd=ROOT, input=GENERATED, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, ""), run.stdout


# The command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let the generator write to a file that is not there yet."""
    path = tmp_path / TARGET.name
    monkeypatch.setattr(generator, "TARGET", path)
    return path


def test_the_command_writes_and_compares(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` says whether the file is up to date, and what to do if it is not; without it the file is written."""
    assert generator.main(["--check"]) == 1
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0
    target.write_text(GENERATED[:-1], "utf-8")
    assert generator.main(["--check"]) == 1
    stale, current = generator.STALE, "_sync.py is up to date."
    assert "run python -m leadlex._portal.generator" in stale
    assert capsys.readouterr().out.splitlines() == [stale, current, current, stale]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("    def odd(self) -> int:\n        return 1", r"_pager\.py:\d+: no rule for AsyncPager\.odd: write it as .*"),
        ("    def odd(", r".*never closed \(_pager\.py, line \d+\)"),
    ],
    ids=["unknown shape", "syntax error"],
)
def test_the_command_says_what_it_cant_read(
    text: str, said: str, target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What no rule fits ends the command with a line that says where and what to do, and nothing is written."""
    texts = {module: with_method(text)(module) for module in SOURCES.values()}
    monkeypatch.setattr(generator, "read_module", texts.__getitem__)
    assert generator.main([]) == 1
    assert re.fullmatch(said, capsys.readouterr().out.strip())
    assert not target.exists()


THIS = f"{sys.version_info.major}.{sys.version_info.minor}"


def pythons(version: str) -> list[str]:
    """Find the interpreters of a version: this one, on the path, or among pyenv's."""
    if version == THIS:
        return [sys.executable]
    found = shutil.which(f"python{version}")
    folders = Path(os.environ.get("PYENV_ROOT", "/nowhere")).glob(f"versions/{version}*/bin/python")
    return [path for path in [*([found] if found else []), *map(str, folders)] if _is_python(path, version)]


def _is_python(path: str, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    # pyenv puts a shim on the path for versions that are not switched on; it fails when it is run.
    run = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    return run.stdout.strip() == version


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_python_writes_the_same(version: str) -> None:
    """`ast.unparse` differs between versions; what the generator writes does not."""
    found = pythons(version)
    if not found:
        pytest.skip(f"no Python {version} on this machine")
    run = subprocess.run(
        [found[0], "-m", "leadlex._portal.generator", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "_sync.py is up to date.\n", "")


# Two clients ----------------------------------------------------------------------------------------------------------


def runner_of(kind: type) -> dict[str, str]:
    """List what a class offers, with signatures, in the sync client's names."""
    offered = {name: member for name, member in vars(kind).items() if name == "__init__" or not name.startswith("_")}
    return {RENAMED.get(name, name): _signature(member) for name, member in offered.items()}


def _signature(member: object) -> str:
    inner = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    assert callable(inner)
    return f"{type(member).__name__} {generator.renamed(str(inspect.signature(inner)))}"


@pytest.mark.parametrize(("async_name", "sync_name"), TWINS.items(), ids=TWINS)
def test_both_runners_offer_the_same(async_name: str, sync_name: str) -> None:
    """Who knows one client knows the other: names, parameters, defaults and what is given are the same."""
    one, other = runner_of(getattr(leadlex, async_name)), runner_of(getattr(leadlex, sync_name))
    one = {name: signature for name, signature in one.items() if (async_name, name) not in OMITTED}
    if async_name != "AsyncLeadLex":
        del one["__init__"], other["__init__"]  # handles are made by a client
    assert one == other


@pytest.mark.parametrize("name", TWINS.values())
def test_no_word_of_the_async_runner_is_left(name: str) -> None:
    """The sync client's docstrings and examples speak of what a sync program types."""
    kind = getattr(leadlex, name)
    texts = [kind.__doc__ or "", *(inspect.getdoc(getattr(kind, inner)) or "" for inner in dir(kind))]
    left = re.findall(r"\bawait\b|\basync\b|\bAsync\w+|\ba(?:close|next)\b", " ".join(texts))
    assert set(left) <= {"AsyncClient"}  # httpx's


# Refusals ----------------------------------------------------------------------------------------------------------


def with_method(text: str, kind: str = "AsyncPager") -> Callable[[str], str]:
    """Read the modules as they are, with something put in at the head of one class."""

    def read(module: str) -> str:
        whole = generator.read_module(module)
        if module != SOURCES[kind]:
            return whole
        head, docstring, tail = re.split(rf'(class {kind}\b.*?\n    """\n)', whole, maxsplit=1, flags=re.DOTALL)
        return f"{head}{docstring}\n{text}\n{tail}"

    return read


UNKNOWN = {
    "var-args": "    async def odd(self, *ids: str) -> None:\n        pass",
    "keyword var-args": "    async def odd(self, **ids: str) -> None:\n        pass",
    "positional-only": "    async def odd(self, one: str, /) -> None:\n        pass",
    "async generator": "    async def odd(self) -> AsyncIterator[int]:\n        yield 1",
    "plain method": "    def odd(self) -> int:\n        return 1",
    "no return annotation": "    async def odd(self):\n        return 1",
    "no parameter annotation": "    async def odd(self, page=1) -> int:\n        return 1",
    "staticmethod": "    @staticmethod\n    def odd() -> int:\n        return 1",
    "async staticmethod": "    @staticmethod\n    async def odd() -> int:\n        return 1",
    "decorated coroutine": "    @retried\n    async def odd(self) -> int:\n        return 1",
    "decorated listing": "    @cached\n    def odd(self) -> Batched[int]:\n        return 1",
    "decorated twice": "    @one\n    @two\n    def odd(self) -> int:\n        return 1",
    "classmethod of something else": "    @classmethod\n    def odd(cls) -> int:\n        return 1",
    "classmethod with parameters": "    @classmethod\n    def odd(cls, path: str) -> Self:\n        return cls()",
    "async classmethod": "    @classmethod\n    async def odd(cls) -> Self:\n        return cls()",
    "property setter": "    @page.setter\n    def odd(self, value: int) -> None:\n        pass",
    "async property": "    @property\n    async def odd(self) -> int:\n        return 1",
    "iterating property": "    @property\n    def odd(self) -> AsyncIterator[int]:\n        return 1",
    "nested class": "    class odd:\n        pass",
    "class attribute": "    odd: int = 1",
    "plain class attribute": "    odd = 1",
    "unknown dunder": "    def __len__(self) -> int:\n        return 1",
    "unknown dunder of a listing": "    def __getitem__(self, page: int) -> Batched[int]:\n        return 1",
    "dunder that gives a copy": "    def __copy__(self) -> Self:\n        return self",
    "async dunder": "    async def __call__(self) -> int:\n        return 1",
    "what people write is kept": "    async def odd(self, *, note: str) -> int:\n        return 1",
    "what people write is dropped in part": (
        "    async def odd(self, text: str, *, note: str) -> int:\n"
        "        try:\n            return 1\n        finally:\n            del text"
    ),
    "overload that does something": "    @overload\n    async def odd(self, page: int) -> int:\n        return 1",
    "overload with var-args": "    @overload\n    async def odd(self, *ids: str) -> int: ...",
    "statement": "    print('odd')",
}


@pytest.mark.parametrize("text", UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_shape_is_refused(text: str) -> None:
    """What no rule is made for is refused with file, line, class and name, never guessed at."""
    read = with_method(text)
    with pytest.raises(UnknownShape) as caught:
        generator.generate(read)
    said = re.fullmatch(r"_pager\.py:(\d+): no rule for AsyncPager\.(\w+): .+", str(caught.value))
    assert said is not None
    name = re.search(r"(?:def|class) (\w+)", text)
    assert said[2] == (name[1] if name else type(_first_statement(text)).__name__)
    assert text.splitlines()[0] in read("_pager").splitlines()[int(said[1]) - 1 - text.count("    @") : int(said[1])]


def _first_statement(text: str) -> object:
    return ast.parse(inspect.cleandoc(text)).body[0]


@pytest.mark.parametrize(
    "head",
    ["class AsyncPager(Generic[T], metaclass=Meta):", "@final\nclass AsyncPager(Generic[T]):"],
    ids=["keyword", "decorator"],
)
def test_a_class_with_more_than_bases_is_refused(head: str) -> None:
    """A class's keywords and decorators are not dropped silently."""

    def read(module: str) -> str:
        return generator.read_module(module).replace("class AsyncPager(Generic[T]):", head)

    with pytest.raises(UnknownShape, match=r"_pager\.py:\d+: no rule for AsyncPager\.AsyncPager"):
        generator.generate(read)


@pytest.mark.parametrize(
    ("name", "names"),
    [("what people write is kept", "note"), ("what people write is dropped in part", "text, note")],
)
def test_what_is_to_be_dropped_is_named(name: str, names: str) -> None:
    """Who adds a parameter that a traceback could show hears both ways out."""
    with pytest.raises(UnknownShape, match=rf"`del {names}` in a `finally`, as `chat` does, or list in PLAIN"):
        generator.generate(with_method(UNKNOWN[name]))


def test_a_class_without_docstring_loses_nothing() -> None:
    """The first statement of a class is skipped only where it is its docstring."""

    def read(module: str) -> str:
        return re.sub(
            r'(class AsyncPager\b.*?\n)    """.*?"""\n',
            r"\1    odd = 1\n",
            generator.read_module(module),
            flags=re.DOTALL,
        )

    with pytest.raises(UnknownShape, match=r"no rule for AsyncPager\.Assign"):
        generator.generate(read)


def test_a_client_that_keeps_what_it_was_given_is_refused() -> None:
    """A client's options that are not known to be plain are dropped as a method's are."""

    def read(module: str) -> str:
        return generator.read_module(module).replace("del api_key, ", "del ")

    with pytest.raises(UnknownShape, match=r"_client\.py:\d+: no rule for AsyncLeadLex\.__init__"):
        generator.generate(read)


def test_what_people_write_is_dropped() -> None:
    """A parameter that is not known to be plain is dropped before anything waits, whatever happens."""
    made = generator.generate(
        with_method(
            "    async def one(self, id: str, *, note: str) -> int:\n"
            "        try:\n            return 1\n        finally:\n            del note"
        )
    )
    assert (
        "        try:\n            twin = self._wrapped.one(id, note=note)\n"
        "        finally:\n            del note\n        return self._bridge.call(twin)\n"
    ) in made


def test_overloads_are_rendered() -> None:
    """Each signature of a method comes out in sync words, without a body."""
    made = generator.generate(
        with_method(
            "    @overload\n    async def one(self, *, note: str) -> AsyncThread: ...\n\n"
            "    @overload\n    def two(self, *, note: str) -> AsyncThread: ..."
        )
    )
    assert "    @overload\n    def one(self, *, note: str) -> Thread: ...\n" in made
    assert "    @overload\n    def two(self, *, note: str) -> Thread: ...\n" in made


def test_known_shapes_are_rendered() -> None:
    """A coroutine, a handle, a property and a listing come out as calls of their twins."""
    text = with_method(
        "    async def one(self, id: str, *, limit: int = 1) -> int:\n        return 1\n\n"
        "    def two(self) -> AsyncThread:\n        return 1\n\n"
        "    @property\n    def three(self) -> int:\n        return 1\n\n"
        "    def four(self) -> Batched[int]:\n        return 1\n\n"
        "    async def five(self, conversation_id: str, contact_id: str, deal_id: str, user_id: str, "
        "idempotency_key: str, method: str, path: str) -> int:\n"
        "        return 1\n"
    )
    made = generator.generate(text)
    assert "    def one(self, id: str, *, limit: int = 1) -> int:  # noqa: A002" in made
    assert "        return self._bridge.call(self._wrapped.one(id, limit=limit))" in made
    assert "        return Thread(self._wrapped.two(), self._bridge)" in made
    assert "    @property\n    def three(self) -> int:\n        return self._wrapped.three\n" in made
    assert "    def four(self) -> Iterator[int]:\n        return Batches(self._bridge, self._wrapped.four())\n" in made
    assert (
        "        twin = self._wrapped.five(\n" in made or "        twin = self._wrapped.five(conversation_id, " in made
    )
