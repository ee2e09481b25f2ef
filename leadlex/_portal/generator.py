"""Write `_sync.py`, the sync client, from the text of the async one.

`python -m leadlex._portal.generator` writes it, and with `--check` compares it, whole. The generator knows the few
shapes listed in `_METHODS` and refuses every other with class, method and line, so that nothing is guessed.

Rule: standard library only; renaming goes by the list below, never by stripping a prefix.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

WIDTH = 120
HERE = Path(__file__).parent.parent
TARGET = HERE / "_sync.py"
STALE = "_sync.py is not what the async modules make: run python -m leadlex._portal.generator."

RENAMED = {
    "AsyncLeadLex": "LeadLex",
    "AsyncChatStream": "ChatStream",
    "AsyncPager": "Pager",
    "AsyncThread": "Thread",
    "AsyncIterator": "Iterator",
    "Batched": "Iterator",
    "aclose": "close",
    "anext": "next",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}
SOURCES = {"AsyncLeadLex": "_client", "AsyncChatStream": "_stream", "AsyncPager": "_pager", "AsyncThread": "_thread"}
OMITTED = {("AsyncChatStream", "__del__")}  # the pump notices a stream that was left
# Parameters that may stand in a frame while it waits; every other one is what people wrote, or a secret.
PLAIN = {
    *("id", "conversation_id", "user_id", "contact_id", "deal_id", "idempotency_key", "first_sent", "method", "path"),
    *(
        "status",
        "archived",
        "page",
        "per_page",
        "limit",
        "include_tool_steps",
        "allow_tools",
        "timeout",
        "poll_interval",
    ),
    *("retries", "resume", "max_connections", "verify", "http_client"),
}
HEAD = '''"""The sync client. Written by `python -m leadlex._portal.generator`; change the async one, not this.

Rule: no logic. Every method runs its async twin in the thread of all sync clients.
"""
'''


class UnknownShape(Exception):
    """Something that the generator has no rule for."""

    def __init__(self, kind: ast.ClassDef, node: ast.stmt) -> None:
        name = getattr(node, "name", type(node).__name__)
        where = f"{SOURCES.get(kind.name, '?')}.py:{node.lineno}"
        super().__init__(f"{where}: no rule for {kind.name}.{name}: {_advice(node)}")


def _advice(node: ast.stmt) -> str:
    """Say what makes a rule fit."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not drops(node):
        names = ", ".join(written(node))
        return f"`del {names}` in a `finally`, as `chat` does, or list in PLAIN what a traceback may show"
    return "write it as its neighbours are, or add a rule to _METHODS"


Method = ast.FunctionDef | ast.AsyncFunctionDef


def renamed(text: str) -> str:
    """Put the sync names in, word by word."""
    return re.sub(r"\b(" + "|".join(map(re.escape, RENAMED)) + r")\b", lambda match: RENAMED[match[0]], text)


def spoken(text: str) -> str:
    """Put sync words into a docstring and its example."""
    text = re.sub(r"\basync (with|for)\b", r"\1", text)
    text = re.sub(r"\bawait ", "", text)
    return renamed(text.replace("httpx.AsyncClient", "\0")).replace("\0", "httpx.AsyncClient")


# Signatures --------------------------------------------------------------------------------------------------------


def parameters(method: Method) -> list[str]:
    """Render the parameters of a method, one string each, with the stars that stand between them."""
    arguments = method.args
    first_default = len(arguments.args) - len(arguments.defaults)
    rendered = [
        _parameter(arg, arguments.defaults[i - first_default] if i >= first_default else None)
        for i, arg in enumerate(arguments.args)
    ]
    if arguments.kwonlyargs:
        keyword = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        rendered += ["*", *(_parameter(arg, default) for arg, default in keyword)]
    return rendered


def _parameter(arg: ast.arg, default: ast.expr | None) -> str:
    if arg.annotation is None:
        return arg.arg  # self or cls
    typed = f"{arg.arg}: {renamed(_unparsed(arg.annotation))}"
    return typed if default is None else f"{typed} = {_unparsed(default)}"


def _unparsed(node: ast.expr) -> str:
    # ast.unparse quotes with ', the formatter with ".
    return ast.unparse(node).replace("'", '"')


def passed(method: Method) -> list[str]:
    """Render the arguments that hand a method's parameters on."""
    plain = [arg.arg for arg in method.args.args[1:]]
    return [*plain, *(f"{arg.arg}={arg.arg}" for arg in method.args.kwonlyargs)]


def bracketed(before: str, items: list[str], after: str, indent: str) -> list[str]:
    """Render a call or signature on one line where it fits, else one item a line, as the formatter would."""
    line = f"{indent}{before}({', '.join(items)}){after}"
    if len(line) <= WIDTH:
        return [line]
    return [f"{indent}{before}(", *(f"{indent}    {item}," for item in items), f"{indent}){after}"]


# Methods -----------------------------------------------------------------------------------------------------------


def head(method: Method) -> list[str]:
    """Render the decorators, the signature and the docstring of a method."""
    decorators = [f"    @{ast.unparse(each)}" for each in method.decorator_list]
    name = RENAMED.get(method.name, method.name)
    lines = bracketed(f"def {name}", parameters(method), f" -> {renamed(_unparsed(_returns(method)))}:", "    ")
    lines[-1 if len(lines) > 1 else 0] += _quiet(method)
    return [*decorators, *lines, *documentation(method, "        ")]


def _quiet(method: Method) -> str:
    names = {arg.arg for arg in (*method.args.args, *method.args.kwonlyargs)}
    return "  # noqa: A002  # the contract's word" if "id" in names else ""


def documentation(node: Method | ast.ClassDef, indent: str) -> list[str]:
    """Render a docstring in sync words."""
    text = ast.get_docstring(node)
    if text is None:
        return []
    lines = spoken(text).splitlines()
    if len(lines) == 1:
        return [f'{indent}"""{lines[0]}"""']
    return [f'{indent}"""{lines[0]}', *(f"{indent}{line}".rstrip() for line in lines[1:]), f'{indent}"""']


def wrapped_call(method: Method, before: str, after: str) -> list[str]:
    """Render the call of the async twin inside of `before` and `after`.

    What was asked is dropped before anything waits: a traceback that shows locals must not show it.
    """
    items = passed(method)
    whole = f"        return {before}self._wrapped.{method.name}({', '.join(items)}){after}"
    if len(whole) <= WIDTH and not written(method):
        return [whole]
    return [*dropping("twin", f"self._wrapped.{method.name}", method), f"        return {before}twin{after}"]


def written(method: Method) -> list[str]:
    """List the parameters that are to be dropped."""
    names = [arg.arg for arg in (*method.args.args[1:], *method.args.kwonlyargs)]
    return [name for name in names if name not in PLAIN]


def dropping(name: str, called: str, method: Method) -> list[str]:
    """Render the assignment of what is made of a method's parameters, and the end of those that are to be dropped."""
    dropped = ", ".join(written(method))
    if not dropped:
        return bracketed(f"{name} = {called}", passed(method), "", "        ")
    call = bracketed(f"{name} = {called}", passed(method), "", "            ")
    return ["        try:", *call, "        finally:", f"            del {dropped}"]


def drops(method: Method) -> bool:
    """Tell whether a method drops, whatever happens, all of its parameters that are to be dropped."""
    ends = [node for step in method.body if isinstance(step, ast.Try) for node in step.finalbody]
    deleted = [target for node in ends if isinstance(node, ast.Delete) for target in node.targets]
    return set(written(method)) <= {ast.unparse(target) for target in deleted}


def overloaded(_: ast.ClassDef, method: Method) -> list[str] | None:
    """Render one of several signatures of a method."""
    if not _is_overload(method):
        return None
    lines = head(method)
    lines[-1] += " ..."
    return lines


def _is_overload(method: Method) -> bool:
    return _decorator(method) == "overload" and [ast.unparse(step) for step in method.body] == ["..."]


def coroutine(kind: ast.ClassDef, method: Method) -> list[str] | None:
    """Render `async def`."""
    if not isinstance(method, ast.AsyncFunctionDef) or method.name.startswith("__"):
        return None
    if method.name == "aclose":
        return [*head(method), f"        self.{'_pump' if _is_stream(kind) else '_bridge'}.close()"]
    if _given(method) == "Self":
        return (
            [*head(method), f"        self._pump.{method.name}()", "        return self"] if _is_stream(kind) else None
        )
    runner = "self._pump.finish(" if _is_stream(kind) else "self._bridge.call("
    return [*head(method), *wrapped_call(method, runner, ")")]


def handle(_: ast.ClassDef, method: Method) -> list[str] | None:
    """Render a method that gives a handle."""
    made = _given(method)
    if isinstance(method, ast.AsyncFunctionDef) or made not in SOURCES or method.decorator_list:
        return None
    return [*head(method), *wrapped_call(method, f"{RENAMED[made]}(", ", self._bridge)")]


def same_class(_: ast.ClassDef, method: Method) -> list[str] | None:
    """Render a method that gives a copy."""
    if isinstance(method, ast.AsyncFunctionDef) or _given(method) != "Self" or method.decorator_list:
        return None
    if method.name.startswith("__"):
        return None
    return [*head(method), *wrapped_call(method, "self._of(", ", self._bridge.lend(), vars(self))")]


def class_method(kind: ast.ClassDef, method: Method) -> list[str] | None:
    """Render a classmethod that makes a client."""
    if _decorator(method) != "classmethod" or _given(method) != "Self" or passed(method):
        return None
    return [
        *head(method),
        f"        wrapped = {kind.name}.{method.name}()",
        "        return cls._of(wrapped, Bridge(wrapped.aclose), {})",
    ]


def read_only(kind: ast.ClassDef, method: Method) -> list[str] | None:
    """Render a property; one that gives an iterator is the pump's."""
    if _decorator(method) != "property":
        return None
    if _given(method) == "AsyncIterator":
        return [*head(method), f"        return self._pump.{method.name}()"] if _is_stream(kind) else None
    return [*head(method), f"        return self._wrapped.{method.name}"]


def listing(_: ast.ClassDef, method: Method) -> list[str] | None:
    """Render what gives an iterator of a listing."""
    if isinstance(method, ast.AsyncFunctionDef) or _given(method) != "Batched" or method.decorator_list:
        return None
    if method.name.startswith("__") and method.name != "__aiter__":
        return None
    return [*head(method), f"        return Batches(self._bridge, self._wrapped.{method.name}())"]


def dunder(kind: ast.ClassDef, method: Method) -> list[str] | None:
    """Render the methods of the language."""
    bodies = {
        "__reduce__": "return self._wrapped.__reduce__()",
        "__aenter__": "return self",
        "__aexit__": "self.close()",
    }
    if _is_stream(kind):
        bodies |= {"__aiter__": "return self", "__anext__": "return next(self._pump)"}
    # A client whose options were refused has no twin, and is shown all the same.
    twin = f'getattr(self, "_wrapped", {kind.name})' if kind.name == "AsyncLeadLex" else "self._wrapped"
    bodies["__repr__"] = f'return repr({twin}).replace("{kind.name}", "{RENAMED[kind.name]}", 1)'
    body = bodies.get(method.name)
    return None if body is None else [*head(method), f"        {body}"]


def making(kind: ast.ClassDef, method: Method) -> list[str] | None:
    """Render `__init__`: a client makes its twin, a handle is given it."""
    if method.name != "__init__":
        return None
    if kind.name == "AsyncLeadLex" and not drops(method):
        return None
    if kind.name != "AsyncLeadLex":
        pump = ["        self._pump = Pump(bridge, wrapped)"] if _is_stream(kind) else []
        generic = "[T]" if kind.name == "AsyncPager" else ""
        return [
            f"    def __init__(self, wrapped: {kind.name}{generic}, bridge: Bridge) -> None:",
            "        self._wrapped = wrapped",
            "        self._bridge = bridge",
            *pump,
        ]
    return [
        *head(method),
        *dropping("self._wrapped", kind.name, method),
        "        self._bridge = Bridge(self._wrapped.aclose)",
        "",
        "    @classmethod",
        f"    def _of(cls, wrapped: {kind.name}, bridge: Bridge, kept: Mapping[str, object]) -> Self:",
        "        client = object.__new__(cls)",
        "        client.__dict__.update(kept, _wrapped=wrapped, _bridge=bridge)",
        "        return client",
    ]


_METHODS: tuple[Callable[[ast.ClassDef, Method], list[str] | None], ...] = (
    overloaded,
    making,
    dunder,
    class_method,
    read_only,
    listing,
    handle,
    same_class,
    coroutine,
)


def _is_stream(kind: ast.ClassDef) -> bool:
    return any(isinstance(node, ast.AsyncFunctionDef) and node.name == "__anext__" for node in kind.body)


def _decorator(method: Method) -> str | None:
    return ast.unparse(method.decorator_list[0]) if len(method.decorator_list) == 1 else None


def _given(method: Method) -> str:
    """Name the class of what a method gives, without its parameters."""
    return ast.unparse(_returns(method)).partition("[")[0]


def _returns(method: Method) -> ast.expr:
    return method.returns or ast.Constant(None)


def _is_plain(method: Method) -> bool:
    """Tell whether a method has nothing that a rule would drop: other parameters, other decorators, a `yield`."""
    arguments = method.args
    typed = all(arg.annotation for arg in (*arguments.args[1:], *arguments.kwonlyargs))
    if arguments.vararg or arguments.kwarg or arguments.posonlyargs or not (typed and method.returns):
        return False
    if _is_overload(method):
        return True
    if isinstance(method, ast.AsyncFunctionDef):
        yields = any(isinstance(node, ast.Yield) for node in ast.walk(method))
        return not (yields or method.decorator_list)
    return not method.decorator_list or _decorator(method) in ("property", "classmethod")


def _is_discreet(method: Method) -> bool:
    """Tell whether no frame of a method holds what people wrote while it waits."""
    return method.name.startswith("__") or _is_overload(method) or drops(method)


# The file ----------------------------------------------------------------------------------------------------------


def rendered_class(kind: ast.ClassDef) -> list[str]:
    """Render one class.

    Raises:
        UnknownShape: It has something that no rule knows.
    """
    if kind.keywords or kind.decorator_list:
        raise UnknownShape(kind, kind)
    bases = ", ".join(ast.unparse(base) for base in kind.bases)
    lines = [f"class {RENAMED[kind.name]}{bases and f'({bases})'}:", *documentation(kind, "    ")]
    for node in kind.body[ast.get_docstring(kind) is not None :]:
        name = getattr(node, "name", "")
        if (kind.name, name) in OMITTED or (name.startswith("_") and not name.startswith("__")):
            continue  # what is private is not a part of the client
        lines += ["", *rendered_method(kind, node)]
    return lines


def rendered_method(kind: ast.ClassDef, node: ast.stmt) -> list[str]:
    """Render one method by the first rule that knows its shape."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_plain(node) and _is_discreet(node):
        for rule in _METHODS:
            lines = rule(kind, node)
            if lines is not None:
                return lines
    raise UnknownShape(kind, node)


def imports(trees: dict[str, ast.Module], body: str) -> list[str]:
    """Render the imports of the names that the classes use, sorted as the linter wants them."""
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    wanted: dict[str, set[str]] = {
        "._portal.bridge": used & {"Batches", "Bridge"},
        "._portal.pump": used & {"Pump"},
    }
    for source, tree in trees.items():
        own = {node.name for node in tree.body if isinstance(node, ast.ClassDef)} & set(SOURCES)
        wanted.setdefault(f".{source}", set()).update(own)
        for module, name in _imported(tree):
            if RENAMED.get(name, name) in used and name not in SOURCES:
                wanted.setdefault(module, set()).add(RENAMED.get(name, name))
    foreign = ["import httpx"] if "httpx" in used else []
    standard = ["import ssl"] if "ssl" in used else []
    outer = {module: names for module, names in wanted.items() if not module.startswith(".")}
    inner = {module: names for module, names in wanted.items() if module.startswith(".")}
    return [*standard, *_froms(outer), "", *foreign, "", *_froms(inner)]


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            for alias in node.names:
                yield "." * node.level + (node.module or ""), alias.name


def _froms(wanted: dict[str, set[str]]) -> Iterator[str]:
    for module in sorted(wanted):
        names = sorted(wanted[module], key=_import_order)
        line = f"from {module} import {', '.join(names)}"
        listed = "".join(f"    {name},\n" for name in names)
        yield line if len(line) <= WIDTH else f"from {module} import (\n{listed})"


def _import_order(name: str) -> tuple[int, str]:
    # isort's: constants, classes, the rest.
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)


def generate(read: Callable[[str], str]) -> str:
    """Return the text of the sync client, from the texts of the async modules."""
    trees = {module: ast.parse(read(module), f"{module}.py") for module in SOURCES.values()}
    kinds = {node.name: node for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef)}
    classes = ["\n".join(rendered_class(kinds[name])) for name in SOURCES]
    body = "\n\n\n".join(classes)
    return "\n".join([HEAD, "from __future__ import annotations", "", *imports(trees, body), "", "", body, ""])


def read_module(module: str) -> str:
    """Read the text of a module."""
    return (HERE / f"{module}.py").read_text("utf-8")


def problem() -> str | None:
    """Say what is wrong with the file, if anything, and what to do."""
    try:
        text = generate(read_module)
    except (UnknownShape, SyntaxError) as error:
        return str(error)
    return None if TARGET.exists() and TARGET.read_text("utf-8") == text else STALE


def main(arguments: list[str]) -> int:
    """Compare the file, and without `--check` write it where it is out of date."""
    found = problem()
    if found == STALE and "--check" not in arguments:
        TARGET.write_text(generate(read_module), "utf-8")
        found = None
    sys.stdout.write(f"{found or f'{TARGET.name} is up to date.'}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
