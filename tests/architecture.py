"""The layers of the library, and the checks that hold the code to them.

Every check takes the sources as a mapping of dotted module names to texts and returns what is wrong as lines, each with
module and line; so each can be shown a small package that breaks its rule.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from attrs import frozen

Sources = Mapping[str, str]

ROOT = Path(__file__).parent.parent
PACKAGE = "leadlex"

#: From the bottom up. A unit is a file or a folder of the package; it imports from its own layer and from lower ones.
LAYERS = (
    ("_values", "_errors", "_system_threads", "_steady_clock", "_logging", "_api_key", "_config", "_settings"),
    ("webhooks",),
    ("_protocol",),
    ("_policy",),
    ("_network",),
    ("_stream", "_pager", "_thread", "_tasks"),
    ("_client",),
    ("_portal",),
    ("_sync", "_sse"),
    ("sandbox", "pytest_plugin", "cli"),
)
GENERATOR = f"{PACKAGE}._portal.generator"
APPS = LAYERS[-1]
PUBLIC_UNITS = frozenset({"webhooks", "sandbox"})
LAYER_OF = {unit: number for number, units in enumerate(LAYERS) for unit in units}

#: The highest layer that the sandbox shares: a server that shared the client's code would share its mistakes.
SHARED_WITH_SANDBOX = 0

#: Which modules may use which dependency: whole units, or single modules; None is every one. A package that is not here
#: is not used at all.
DEPENDENCIES: Mapping[str, frozenset[str] | None] = {
    "attrs": None,
    "cattrs": frozenset({"_values.structure", "_protocol.server_events"}),
    "pydantic_core": frozenset({"_values.schema"}),
    "typing_extensions": frozenset({"_values.contexts"}),
    "h11": frozenset({"_network.patches"}),
    "httpx_sse": frozenset({"_protocol.event_blocks", "_stream"}),
    "httpcore": frozenset({"_network"}),
    "httpx": frozenset({"_network", "_client", "_sync", "cli", "pytest_plugin"}),
    "anyio": frozenset({"_network", "_stream", "_pager", "_portal", "pytest_plugin"}),
    "aiohttp": frozenset({"_network.aiohttp_transport"}),
    "yarl": frozenset({"_network.aiohttp_transport"}),  # aiohttp's URLs
    "starlette": frozenset({"sandbox"}),
    "uvicorn": frozenset({"sandbox"}),
    "rich": frozenset({"cli"}),
    "pytest": frozenset({"pytest_plugin"}),
}
SLEEPS_IN = frozenset({"_network.timeouts", "_network.clock", "_network.transport"})
PATHS_IN = frozenset({"_protocol.endpoints", "sandbox"})

#: Units that decide and do nothing, and what they therefore have no use for.
PURE = frozenset({"_values", "_protocol", "_policy"})
IMPURE_MODULES = frozenset({"asyncio", "os", "random", "select", "socket", "ssl", "subprocess", "threading", "time"})


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
        """Name the unit that imports."""
        return unit_of(self.module)

    @property
    def unit(self) -> str | None:
        """Name the unit that is imported from, empty for the package itself, None for what is not ours."""
        return unit_of(self.target) if self.target.split(".")[0] == PACKAGE else None


def sources() -> dict[str, str]:
    """Read the library."""
    return {_dotted(path): path.read_text("utf-8") for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


def _dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(module: str) -> str:
    """Name the file or folder of the package that a module is or is in; the package's own `__init__` is in none."""
    return module.split(".")[1] if "." in module else ""


# Reading imports ---------------------------------------------------------------------------------------------------


class _Reader(ast.NodeVisitor):
    def __init__(self, module: str, package: Sources) -> None:
        self._module = module
        self._package = package
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
            self._note(node, *((inner, None) if inner in self._package else (base, alias.name)))

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func).rpartition(".")[2]
        if name in ("import_module", "__import__"):
            self._note(node, f"({name})", None)
        self.generic_visit(node)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        is_package = any(other.startswith(f"{self._module}.") for other in self._package)
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


def imports(package: Sources) -> list[Import]:
    """Read all imports of a package; an `import_module(…)` counts as one, of a target in brackets."""
    found: list[Import] = []
    for module, text in package.items():
        reader = _Reader(module, package)
        reader.visit(ast.parse(text))
        found += reader.found
    return found


# The checks --------------------------------------------------------------------------------------------------------


def units_without_layer(package: Sources) -> list[str]:
    """Name the modules that no layer knows."""
    return [module for module in package if unit_of(module) not in {"", *LAYER_OF}]


def upward_imports(package: Sources) -> list[str]:
    """Name the imports from a higher layer, or of what is not for others."""
    found = (each for each in imports(package) if each.unit is not None)
    return [f"{each.where} {problem}" for each in found if (problem := _wrong_way(each, package))]


def _wrong_way(each: Import, package: Sources) -> str | None:
    if GENERATOR in (each.module, each.target):
        return "joins the generator, which stands alone"
    if each.unit == each.source:
        return None
    if not each.source:
        return None if each.typing else "loads a name before it is used"
    if each.source == "sandbox":
        return _wrong_for_sandbox(each, modules_of_names(package))
    if each.source in APPS:
        return _wrong_for_app(each)
    downward = each.unit in LAYER_OF and LAYER_OF[each.unit] <= LAYER_OF[each.source]
    return None if downward or _is_listed(each) else f"uses {each.target}"


def _wrong_for_sandbox(each: Import, known: Mapping[str, str]) -> str | None:
    unit = each.unit or unit_of(known.get(each.name or "", ""))
    shared = unit in LAYER_OF and LAYER_OF[unit] <= SHARED_WITH_SANDBOX
    return None if shared else f"shares {each.target} {each.name or ''} with the client"


def _wrong_for_app(each: Import) -> str | None:
    neighbour = each.unit in PUBLIC_UNITS and each.target.count(".") == 1
    return None if neighbour or not each.unit else f"uses {each.target}, which is not public"


def modules_of_names(package: Sources) -> dict[str, str]:
    """Tell for each public name in which module it is, from what `__init__` shows to checkers."""
    public = {PACKAGE: package.get(PACKAGE, "")}
    found = imports({**dict.fromkeys(package, ""), **public})
    return {each.name: each.target for each in found if each.name and each.typing}


def private_names_taken(package: Sources) -> list[str]:
    """Name the imports of another module's private names."""
    return [
        f"{each.where} takes {each.name} of {each.target}"
        for each in imports(package)
        if each.unit is not None and each.target != each.module and re.match("_(?!_)", each.name or "")
    ]


#: Imports inside of functions: who, in which function, of what. Each waits for an extra, or for a name's first use.
FUNCTION_IMPORTS = frozenset(
    {
        ("leadlex", "__getattr__", "(import_module)"),
        ("leadlex._network.aiohttp_client", "_is_installed", "(import_module)"),
        ("leadlex._network.aiohttp_client", "aiohttp_client", "_network"),
        ("leadlex._network.tls", "_system_context", "(import_module)"),
        ("leadlex._errors", "_attempts", "_values"),
        ("leadlex._errors", "to_dict", "_values"),
        ("leadlex._errors", "from_dict", "_values"),
        ("leadlex._errors", "__get_pydantic_core_schema__", "_values"),
        ("leadlex._values.plain", "from_dict", "_values"),
        ("leadlex._values.plain", "__get__", "_values"),
        ("leadlex._values.plain", "__get_pydantic_core_schema__", "_values"),
        ("leadlex._values.plain", "__get_pydantic_json_schema__", "_values"),
        ("leadlex._client", "sandbox", "sandbox"),
        ("leadlex._system_threads", "_gevent", "(import_module)"),
        ("leadlex._network.clients", "_load_what_calls_need", "(import_module)"),
        ("leadlex.cli", "main", "cli"),
        ("leadlex.cli._prompt", "edit_lines", "(import_module)"),
        ("leadlex.sandbox", "__getattr__", "(import_module)"),
    }
)


def imports_in_functions(package: Sources) -> list[str]:
    """Name the imports inside of functions that are not listed."""
    return [
        f"{each.where} imports {each.target} in {each.function}"
        for each in imports(package)
        if each.function is not None and not _is_listed(each)
    ]


def _is_listed(each: Import) -> bool:
    return (each.module, each.function, each.unit or each.target) in FUNCTION_IMPORTS


def hidden_imports(package: Sources) -> list[str]:
    """Name the imports that only checkers see; below the apps only `__init__` and `_errors` have a need."""
    return [
        f"{each.where} hides {each.target}"
        for each in imports(package)
        if each.typing and each.unit is not None and each.source not in ("", "_errors", *APPS)
    ]


def dependencies_out_of_place(package: Sources) -> list[str]:
    """Name the dependencies that are used outside of their modules, or not known at all."""
    foreign = (each for each in imports(package) if each.unit is None and not each.target.startswith("("))
    return [
        f"{each.where} uses {name}"
        for each in foreign
        if (name := each.target.split(".")[0]) not in sys.stdlib_module_names and not _may_use(name, each.module)
    ]


def _may_use(dependency: str, module: str) -> bool:
    modules = DEPENDENCIES.get(dependency, frozenset())
    return module != GENERATOR and (modules is None or _is_in(modules, module))


def _is_in(places: Iterable[str], module: str) -> bool:
    """Tell whether a module is one of some units or modules, or in one."""
    inside = module.removeprefix(f"{PACKAGE}.")
    return any(inside == place or inside.startswith(f"{place}.") for place in places)


def circles(package: Sources) -> list[str]:
    """Name a circle in which modules load each other; what only checkers see, or waits for a call, is left out."""
    arrows: dict[str, set[str]] = {module: set() for module in package}
    for each in imports(package):
        if each.target in package and not each.typing and each.function is None:
            arrows[each.module].add(each.target)
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return [" > ".join(reversed(error.args[1]))]
    return []


def sleepers(package: Sources) -> list[str]:
    """Name the lines below the apps that sleep outside of the modules that may."""
    return [
        f"{module}:{line} sleeps"
        for module, text in package.items()
        if not _is_in((*SLEEPS_IN, *APPS), module)
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


def impurities(package: Sources) -> list[str]:
    """Name what the pure layers import of the world: files, sockets, locks, clocks and chance."""
    return [
        f"{each.where} uses {each.target}"
        for each in imports(package)
        if each.source in PURE and each.target.split(".")[0] in IMPURE_MODULES
    ]


def paths_of_the_api(package: Sources) -> list[str]:
    """Name the texts, docstrings left out, that have a path of the API where none belongs."""
    return [
        f"{module}:{node.lineno} has the path {node.value!r}"
        for module, text in package.items()
        if not _is_in(PATHS_IN, module)
        for node in _texts(ast.parse(text))
        # The base URL has a /v1/ of its own.
        if "/v1/" in str(node.value).replace("/functions/v1/", "")
    ]


def _texts(tree: ast.Module) -> Iterator[ast.Constant]:
    spoken = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in spoken:
            yield node
