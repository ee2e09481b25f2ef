"""What a user can type: the names, what loads when, the docstrings and their examples."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping
from datetime import datetime
from typing import Any, get_args, get_origin, get_type_hints

import anyio
import pytest

import leadlex
from leadlex import _errors
from leadlex._portal.generator import OMITTED
from leadlex.sandbox import Sandbox
from tests import architecture
from tests.architecture import ROOT

NAMES = {name: getattr(leadlex, name, None) for name in leadlex.__all__}
CLASSES = {name: kind for name, kind in NAMES.items() if isinstance(kind, type)}
FUNCTIONS = {name: found for name, found in NAMES.items() if inspect.isfunction(found)}

#: What only stands in annotations: an iterator that can do more, an attribute that travels, the sign for "not given".
ANNOTATIONS = {"Batched", "Fact", "Unset"}


# Names -------------------------------------------------------------------------------------------------------------


def test_all_is_sorted() -> None:
    """The list of names can be read from top to bottom, and has each once."""
    assert leadlex.__all__ == sorted(set(leadlex.__all__))


def test_checkers_and_programs_see_the_same_names() -> None:
    """What `__init__` shows to checkers is what it gives to programs, and both are what it promises."""
    places = {
        "the imports for checkers": {*architecture.modules_of_names(architecture.sources())},
        "__all__": {*leadlex.__all__},
        "_MODULES": {*vars(leadlex)["_MODULE_OF"]},
    }
    everywhere = set[str]().union(*places.values())
    missing = {place: sorted(everywhere - names) for place, names in places.items() if everywhere - names}
    assert not missing, f"leadlex/__init__.py names each public name in three places; missing are {missing}"


@pytest.mark.parametrize("name", leadlex.__all__)
def test_every_name_is_where_it_is_said_to_be(name: str) -> None:
    """A name is the very object of its module, and stays it once it was loaded."""
    module = sys.modules[architecture.modules_of_names(architecture.sources())[name]]
    assert getattr(leadlex, name) is getattr(module, name)


def test_dir_lists_every_name() -> None:
    """A shell completes what was not loaded yet."""
    assert set(dir(leadlex)) >= set(leadlex.__all__)


@pytest.mark.parametrize("name", ["sandbox", "webhooks"])
def test_a_module_is_an_attribute(name: str) -> None:
    """`import leadlex` is enough to use its modules, each of which loads when it is first used."""
    listed = f"'leadlex.{name}' in sys.modules, '{name}' in dir(leadlex), leadlex.{name}.__name__"
    code = f"import leadlex, sys; print({listed})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == (f"False True leadlex.{name}\n", "")


def test_a_misspelt_name_is_refused() -> None:
    """A misspelt name is an `AttributeError` that repeats it, as from any other module."""
    with pytest.raises(AttributeError, match="module 'leadlex' has no attribute 'LeadLexx'"):
        _ = leadlex.LeadLexx  # type: ignore[attr-defined]


def test_importing_leadlex_loads_nothing_heavy() -> None:
    """`import leadlex` costs a program nothing until it uses a name, and the errors then still need no network."""
    code = "import leadlex, sys; leadlex.LeadLexError; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert loaded.isdisjoint({"httpx", "httpcore", "httpx_sse", "cattrs", "attrs", "anyio"})


FIRST_CALLS = """
import asyncio, json, sys
import leadlex

async def calls(lexi):
    await lexi.chat("Hi")
    await lexi.stream_chat("Hi").final_reply()
    await lexi.conversations().collect()

async def first():
    async with leadlex.AsyncLeadLex("wbk_invented", base_url=sys.argv[1]) as lexi:
        before = {*sys.modules}
        await calls(lexi)
        return before

def first_sync():
    with leadlex.LeadLex("wbk_invented", base_url=sys.argv[1]) as lexi:
        before = {*sys.modules}
        lexi.chat("Hi"), lexi.stream_chat("Hi").final_reply(), lexi.conversations().collect()
        return before

before = asyncio.run(first()) if sys.argv[2] == "async" else first_sync()
print(*{*sys.modules} - before)
"""


@pytest.mark.parametrize("runner", ["async", "sync"])
def test_a_first_call_loads_nothing(runner: str) -> None:
    """What a call needs is loaded by the constructor: the first answer comes as fast as the others."""
    with Sandbox() as sandbox:
        url = sandbox.url.replace("127.0.0.1", "localhost")  # a host to look up
        words = [sys.executable, "-c", FIRST_CALLS.replace("wbk_invented", sandbox.api_key), url, runner]
        run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.stdout.split(), run.stderr) == ([], "")


def every_error(kind: type[BaseException]) -> Iterator[str]:
    """Name an error and what is derived from it in the library."""
    if kind.__module__.partition(".")[0] == "leadlex":
        yield kind.__name__
    for each in kind.__subclasses__():
        yield from every_error(each)


def test_every_error_is_exported() -> None:
    """Whatever comes out of the library can be named in an `except`."""
    assert set(every_error(leadlex.LeadLexError)) <= set(leadlex.__all__)


def own_classes(hint: object) -> Iterator[type]:
    """Find the library's classes in an annotation."""
    for inner in (get_origin(hint), *get_args(hint)):
        yield from own_classes(inner) if inner is not None else ()
    if isinstance(hint, type) and hint.__module__.partition(".")[0] == "leadlex":
        yield hint


#: What `_errors` imports for checkers only, for with it `import leadlex` would load the values too, and what it has
#: itself: its classes are shown as members of `leadlex`.
ONLY_CHECKED = {
    "Callable": Callable,
    "Mapping": Mapping,
    "datetime": datetime,
    **vars(_errors),
    **NAMES,
}


def hints_of(member: object) -> dict[str, Any]:
    """Resolve the annotations of a method, a property or a class."""
    found = member.fget if isinstance(member, property) else member
    resolvable = inspect.isfunction(found) or isinstance(found, type)
    return get_type_hints(found, localns=ONLY_CHECKED) if resolvable else {}


def members(kind: type) -> Iterator[tuple[str, object]]:
    """List the public members that a class of ours and its bases of ours define, and its constructor."""
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] == "leadlex":
            for name, member in vars(base).items():
                if not name.startswith("_") or name in ("__init__", "__aiter__", "__anext__", "__iter__", "__next__"):
                    yield name, getattr(member, "__func__", member)


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_every_class_that_a_user_meets_is_exported(kind: type) -> None:
    """What a public method gives or takes, and what a public value holds, has a public name."""
    handles = {"AsyncLeadLex", "LeadLex"}  # the others are made by these, their constructors are ours
    hints = [hints_of(kind)]
    hints += [hints_of(member) for name, member in members(kind) if name != "__init__" or kind.__name__ in handles]
    found = {each.__name__ for each_hints in hints for hint in each_hints.values() for each in own_classes(hint)}
    hidden = found - ANNOTATIONS - {*leadlex.__all__}
    assert not hidden, f"{kind.__name__} shows {hidden}, which leadlex/__init__.py does not export"


def test_a_class_is_found_anywhere_in_an_annotation() -> None:
    """The search looks into what is given, in its parameters and in unions."""
    hint = dict[str, AsyncIterator[leadlex.Page[leadlex.Task] | None]]
    assert [each.__name__ for each in own_classes(hint)] == ["Page", "Task"]


@pytest.mark.parametrize(("module", "kind"), [("async_client", leadlex.AsyncLeadLex), ("sync_client", leadlex.LeadLex)])
def test_checkers_are_shown_every_call(module: str, kind: type) -> None:
    """What a checker knows of a call is written down beside the others."""
    text = (ROOT / "tests" / "test_typing" / f"{module}.py").read_text("utf-8")
    offered = [name for name in vars(kind) if not name.startswith("_")]
    missing = [name for name in offered if not re.search(rf"\.{name}\b", text)]
    assert not missing, f"no assert_type in tests/test_typing/{module}.py for {missing}"


# Docstrings --------------------------------------------------------------------------------------------------------


def documented() -> dict[str, object]:
    """List all that should have a docstring: the public functions, classes and what these define in public."""
    found: dict[str, object] = {**FUNCTIONS}
    for name, kind in CLASSES.items():
        found[name] = kind
        own = {inner: member for inner, member in vars(kind).items() if not inner.startswith("_")}
        callables = {inner: member for inner, member in own.items() if inspect.isroutine(member)}
        properties = {inner: member for inner, member in own.items() if isinstance(member, property)}
        found |= {f"{name}.{inner}": getattr(kind, inner) for inner in {**callables, **properties}}
    return found


DOCUMENTED = documented()
WHERE_THE_SYNC_ONES_ARE = "The sync client's are written by python -m leadlex._portal.generator, of the async one's."


def problems_of_docstring(text: str | None) -> list[str]:
    """Say what is wrong with a docstring, if anything."""
    if not text:
        return ["it is missing"]
    first = inspect.cleandoc(text).split("\n")[0]
    return [] if first.endswith(".") else ["its first line is no sentence"]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_name_says_what_it_does(name: str) -> None:
    """A docstring begins with one sentence."""
    problems = problems_of_docstring(DOCUMENTED[name].__doc__)
    assert not problems, f"The docstring of {name}: {', '.join(problems)}. {WHERE_THE_SYNC_ONES_ARE}"


def test_a_poor_docstring_is_found() -> None:
    """The check refuses none, and no sentence."""
    assert problems_of_docstring(None) == ["it is missing"]
    assert problems_of_docstring("Returns it") == ["its first line is no sentence"]


@pytest.mark.parametrize("name", sorted({*leadlex.__all__} - {*CLASSES, *FUNCTIONS} - {"__version__"}))
def test_every_alias_says_what_it_is(name: str) -> None:
    """An alias has no docstring of its own when it runs; the text under it is what editors show."""
    module = architecture.modules_of_names(architecture.sources())[name]
    body = ast.parse(architecture.sources()[module]).body
    after = next(later for node, later in itertools.pairwise(body) if _assigns(node, name))
    assert isinstance(after, ast.Expr)
    assert isinstance(after.value, ast.Constant)


def _assigns(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name


# Examples ----------------------------------------------------------------------------------------------------------

THEIR_ID = "conv_01HY1"


def example_of(text: str | None) -> str | None:
    """Cut the example out of a docstring."""
    match = re.search(r"^Example:\n((?:    .*\n|\n)+)", inspect.cleandoc(text or "") + "\n", re.MULTILINE)
    return textwrap.dedent(match[1]) if match else None


EXAMPLES = {
    name: example
    for name, member in {"leadlex": leadlex, **DOCUMENTED}.items()
    if (example := example_of(member.__doc__)) is not None
}


def test_every_call_has_an_example() -> None:
    """Whatever a client, a stream, a pager or a thread can do is shown being done."""
    handles = [name for name in CLASSES if f"Async{name}" in CLASSES or name.startswith("Async")]
    calls = {name for name, member in DOCUMENTED.items() if name.split(".")[0] in handles and callable(member)}
    without = calls - {*EXAMPLES} - {".".join(name) for name in OMITTED}
    assert not without, f"No `Example:` in the docstrings of {sorted(without)}. {WHERE_THE_SYNC_ONES_ARE}"


@pytest.fixture
def sandbox(environ: MutableMapping[str, str]) -> Iterator[Sandbox]:
    """Start a sandbox in which no time passes, for clients that are given nothing."""
    with Sandbox(pace=0, task_seconds=0) as sandbox:
        environ["LEADLEX_API_KEY"] = sandbox.api_key
        environ["LEADLEX_BASE_URL"] = sandbox.url
        yield sandbox


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_runs(name: str, sandbox: Sandbox) -> None:
    """Who pastes an example sees it work, with both clients, with only `leadlex` and a client `lexi` at hand."""
    known = sandbox.add_conversation("Series B research for Acme Corp", "Who leads the round?", "Nobody yet.")
    code = compile(
        EXAMPLES[name].replace(THEIR_ID, known), f"<{name}>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    if name.startswith("Async"):
        anyio.run(run_async, code)
    else:
        with leadlex.LeadLex() as lexi:
            assert eval(code, {"leadlex": leadlex, "lexi": lexi}) is None  # noqa: S307  # our own docstring


async def run_async(code: Any) -> None:
    """Run an example whose top level may await."""
    async with leadlex.AsyncLeadLex() as lexi:
        outcome = eval(code, {"leadlex": leadlex, "lexi": lexi})  # noqa: S307  # our own docstring
        if outcome is not None:
            await outcome
