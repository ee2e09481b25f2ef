"""The plan of the house and the checks that hold the code against it.

Every check takes the sources as a mapping of dotted module names to texts and returns what is wrong as lines, each with
module and line; so each can be shown a small house that breaks its rule.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from attrs import frozen

Sources = Mapping[str, str]

ROOT = Path(__file__).parent.parent
PACKAGE = "leadlex"

#: From the ground up; on one floor from left to right. A room imports from lower floors and from its left.
FLOORS = (
    ("_meta", "_events", "_markdown", "_models", "_green"),
    ("_errors", "_config", "_log"),
    ("_wire", "_operations", "_retry", "_replay"),
    ("_alarm", "_pool", "_session", "_aiohttp", "_body", "_faults", "_transport"),
    ("_stream", "_pager", "_threads", "_tasks"),
    ("_client",),
    ("_bridge",),
    ("_sync",),
    ("webhooks", "sandbox", "pytest_plugin", "cli"),
)
BESIDE = "_gen"
APPS = FLOORS[-1]
PLACES = {room: (floor, place) for floor, rooms in enumerate(FLOORS) for place, room in enumerate(rooms)}

#: The highest floor whose rooms the sandbox shares: a server that shared the client's code would share its mistakes.
SHARED_WITH_SANDBOX = 2

#: Who may use which third party; None is everyone. A package that is not here is not used at all.
PARTIES: Mapping[str, frozenset[str] | None] = {
    "attrs": None,
    "cattrs": frozenset({"_wire"}),
    "h11": frozenset({"_pool"}),
    "httpx_sse": frozenset({"_stream"}),
    "httpcore": frozenset({"_pool", "_faults"}),
    "httpx": frozenset(
        {
            "_pool",
            "_session",
            "_aiohttp",
            "_body",
            "_faults",
            "_transport",
            "_stream",
            "_client",
            "_sync",
            "cli",
            "pytest_plugin",
        }
    ),
    "anyio": frozenset(
        {"_alarm", "_pool", "_session", "_body", "_transport", "_stream", "_pager", "_bridge", "pytest_plugin"}
    ),
    "aiohttp": frozenset({"_session"}),
    "yarl": frozenset({"_session"}),  # aiohttp's URLs
    "starlette": frozenset({"sandbox"}),
    "uvicorn": frozenset({"sandbox"}),
    "rich": frozenset({"cli"}),
    "pytest": frozenset({"pytest_plugin"}),
}
SLEEPS_IN = frozenset({"_alarm", "_transport"})
PATHS_IN = frozenset({"_operations", "sandbox"})


@frozen(kw_only=True)
class Import:
    """Hold one import.

    Args:
        module: Who imports, dotted.
        target: What is imported, dotted and absolute.
        name: The name taken from it, if any.
        line: Where.
        function: The function that it stands in, if any.
        typing: Whether only checkers see it.
    """

    module: str
    target: str
    name: str | None
    line: int
    function: str | None
    typing: bool

    @property
    def where(self) -> str:
        """Tell module and line."""
        return f"{self.module}:{self.line}"

    @property
    def source(self) -> str:
        """Name the room that imports."""
        return room_of(self.module)

    @property
    def room(self) -> str | None:
        """Name the room that is imported from, empty for the package's front door, None for what is not ours."""
        return room_of(self.target) if self.target.split(".")[0] == PACKAGE else None


def sources() -> dict[str, str]:
    """Read the library."""
    return {_dotted(path): path.read_text("utf-8") for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


def _dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """Name the room that a module is or is a part of; the package's own `__init__` is in none."""
    return module.split(".")[1] if "." in module else ""


# Reading imports ---------------------------------------------------------------------------------------------------


class _Reader(ast.NodeVisitor):
    def __init__(self, module: str, house: Sources) -> None:
        self._module = module
        self._house = house
        self._function: str | None = None
        self._typing = False
        self.found: list[Import] = []

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        outer, self._function = self._function, node.name
        self.generic_visit(node)
        self._function = outer

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_If(self, node: ast.If) -> None:
        outer = self._typing
        self._typing = outer or ast.unparse(node.test) == "TYPE_CHECKING"
        for child in node.body:
            self.visit(child)
        self._typing = outer
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._note(node, alias.name, None)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self._absolute(node)
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            # `from . import _operations` takes a module, `from .sandbox import Sandbox` a name.
            self._note(node, *((inner, None) if inner in self._house else (base, alias.name)))

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func).rpartition(".")[2]
        if name in ("import_module", "__import__"):
            self._note(node, f"({name})", None)
        self.generic_visit(node)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        is_package = any(other.startswith(f"{self._module}.") for other in self._house)
        parts = self._module.split(".")
        base = parts[: len(parts) - node.level + is_package]
        return ".".join([*base, *([node.module] if node.module else [])])

    def _note(self, node: ast.stmt | ast.expr, target: str, name: str | None) -> None:
        self.found.append(
            Import(
                module=self._module,
                target=target,
                name=name,
                line=node.lineno,
                function=self._function,
                typing=self._typing,
            )
        )


def imports(house: Sources) -> list[Import]:
    """Read all imports of a house; an `import_module(…)` counts as one, of a target in brackets."""
    found: list[Import] = []
    for module, text in house.items():
        reader = _Reader(module, house)
        reader.visit(ast.parse(text))
        found += reader.found
    return found


# The checks --------------------------------------------------------------------------------------------------------


def rooms_without_floor(house: Sources) -> list[str]:
    """Name the modules that the plan does not know."""
    known = {"", BESIDE, *PLACES}
    return [module for module in house if room_of(module) not in known]


def arrows_that_run_back(house: Sources) -> list[str]:
    """Name the imports that run up a floor, or to the right on one's own, or into a room that is closed."""
    found = (each for each in imports(house) if each.room is not None and each.room != each.source)
    return [f"{each.where} {problem}" for each in found if (problem := _wrong_way(each, house))]


def _wrong_way(each: Import, house: Sources) -> str | None:
    if BESIDE in (each.source, each.room):
        return f"joins {BESIDE}, which stands beside the house"
    if not each.source:
        return None if each.typing else "is the front door and loads a name only when it is used"
    if each.source == "sandbox":
        return _wrong_for_sandbox(each, homes(house))
    if each.source in APPS:
        return _wrong_for_app(each)
    leftward = each.room in PLACES and PLACES[each.room] < PLACES[each.source]
    return None if leftward or _is_listed(each) else f"uses {each.target}"


def _wrong_for_sandbox(each: Import, known: Mapping[str, str]) -> str | None:
    home = each.room or known.get(each.name or "", "")
    shared = home in PLACES and PLACES[home][0] <= SHARED_WITH_SANDBOX
    return None if shared else f"shares {each.target} {each.name or ''} with the client"


def _wrong_for_app(each: Import) -> str | None:
    neighbour = each.room in APPS and PLACES[each.room] < PLACES[each.source] and each.target.count(".") == 1
    return None if neighbour or not each.room else f"uses {each.target}, which is not public"


def homes(house: Sources) -> dict[str, str]:
    """Tell for each public name in which room it lives, from what `__init__` shows to checkers."""
    door = {PACKAGE: house.get(PACKAGE, "")}
    found = imports({**dict.fromkeys(house, ""), **door})
    return {each.name: room_of(each.target) for each in found if each.name and each.typing}


def private_names_taken(house: Sources) -> list[str]:
    """Name the imports of another room's private names."""
    return [
        f"{each.where} takes {each.name} of {each.target}"
        for each in imports(house)
        if each.room not in (None, each.source) and re.match("_(?!_)", each.name or "")
    ]


#: Imports inside of functions: who, in which function, of what. Each waits for an extra, or for a name's first use.
FUNCTION_IMPORTS = frozenset(
    {
        ("leadlex", "__getattr__", "(import_module)"),
        ("leadlex._aiohttp", "_is_installed", "(import_module)"),
        ("leadlex._aiohttp", "aiohttp_client", "_session"),
        ("leadlex._errors", "_attempts", "_meta"),
        ("leadlex._client", "sandbox", "sandbox"),
        ("leadlex._green", "_gevent", "(import_module)"),
        ("leadlex._pool", "_load_what_calls_need", "(import_module)"),
        ("leadlex.cli", "main", "cli"),
        ("leadlex.cli._prompt", "edit_lines", "(import_module)"),
        ("leadlex.sandbox", "__getattr__", "(import_module)"),
    }
)


def imports_in_functions(house: Sources) -> list[str]:
    """Name the imports inside of functions that are not listed."""
    return [
        f"{each.where} imports {each.target} in {each.function}"
        for each in imports(house)
        if each.function is not None and not _is_listed(each)
    ]


def _is_listed(each: Import) -> bool:
    return (each.module, each.function, each.room or each.target) in FUNCTION_IMPORTS


def hidden_imports(house: Sources) -> list[str]:
    """Name the imports that only checkers see; below the apps only the front door and `_errors` have a need."""
    return [
        f"{each.where} hides {each.target}"
        for each in imports(house)
        if each.typing and each.room is not None and each.source not in ("", "_errors", *APPS)
    ]


def parties_out_of_room(house: Sources) -> list[str]:
    """Name the third parties that are used outside of their rooms, or not known at all."""
    foreign = (each for each in imports(house) if each.room is None and not each.target.startswith("("))
    return [
        f"{each.where} uses {party}"
        for each in foreign
        if (party := each.target.split(".")[0]) not in sys.stdlib_module_names and not _has_room(party, each.source)
    ]


def _has_room(party: str, room: str) -> bool:
    rooms = PARTIES.get(party, frozenset())
    return room != BESIDE and (rooms is None or room in rooms)


def circles(house: Sources) -> list[str]:
    """Name a circle in which imports run, if there is one; what only checkers see is left out."""
    arrows: dict[str, set[str]] = {module: set() for module in house}
    for each in imports(house):
        if each.target in house and not each.typing:
            arrows[each.module].add(each.target)
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return [" > ".join(reversed(error.args[1]))]
    return []


def sleepers(house: Sources) -> list[str]:
    """Name the lines below the apps that sleep outside of the one room that may."""
    return [
        f"{module}:{line} sleeps"
        for module, text in house.items()
        if room_of(module) not in (*SLEEPS_IN, *APPS)
        for line in _sleeps(ast.parse(text))
    ]


_CLOCKED = frozenset({"time", "anyio", "asyncio", "trio"})
_SLEEPS = frozenset({"sleep", "sleep_until", "sleep_forever"})


def _sleeps(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in _CLOCKED and node.attr in _SLEEPS:
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module in _CLOCKED:
            if _SLEEPS & {alias.name for alias in node.names}:
                yield node.lineno
        elif isinstance(node, ast.With) and _is_nap(node):
            yield node.lineno


def _is_nap(node: ast.With) -> bool:
    """Tell whether a block waits for a sign, but not for ever: a sleep that can be woken."""
    clocked = any("move_on_after" in ast.unparse(item.context_expr) for item in node.items)
    calls = (each for child in node.body for each in ast.walk(child) if isinstance(each, ast.Await))
    return clocked and any(ast.unparse(each.value).endswith(".wait()") for each in calls)


def paths_of_the_api(house: Sources) -> list[str]:
    """Name the texts, docstrings left out, that have a path of the API where none belongs."""
    return [
        f"{module}:{node.lineno} has the path {node.value!r}"
        for module, text in house.items()
        if room_of(module) not in PATHS_IN
        for node in _texts(ast.parse(text))
        # The base URL has a /v1/ of its own.
        if "/v1/" in str(node.value).replace("/functions/v1/", "")
    ]


def _texts(tree: ast.Module) -> Iterator[ast.Constant]:
    spoken = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in spoken:
            yield node
