"""The library keeps to its layers, and every check is shown a package that breaks its rule."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath

import pytest

from tests import architecture
from tests.architecture import ROOT, Sources

Check = Callable[[Sources], list[str]]

#: Every check, and what to do about what it finds.
CHECKS: dict[Check, str] = {
    architecture.units_without_layer: "Give it a layer in LAYERS and a line in the map of .github/CONTRIBUTING.md.",
    architecture.upward_imports: (
        "Imports run down (LAYERS; the map of .github/CONTRIBUTING.md): move what is needed down, or let the caller "
        "hand it over."
    ),
    architecture.private_names_taken: "Drop the underscore of what others use, or use something else.",
    architecture.imports_in_functions: "Import at the top; what has to wait is listed in FUNCTION_IMPORTS.",
    architecture.hidden_imports: "Import it for programs too; where that is a circle, move what both need down.",
    architecture.dependencies_out_of_place: "Use it where DEPENDENCIES says, or list it there and in pyproject.toml.",
    architecture.circles: "Move what both need into a module below both.",
    architecture.sleepers: "Sleep by the transport's `rest`, whose clock the tests turn.",
    architecture.paths_of_the_api: "Make an `Operation` in _protocol/endpoints.py, and send that.",
    architecture.impurities: "These layers only decide: let the caller hand over what it read of the world.",
}

# The rule that is broken, the package that breaks it, and what is said of it.
BROKEN: list[tuple[Check, Sources, list[str]]] = [
    (architecture.units_without_layer, {"leadlex._attic": ""}, ["leadlex._attic"]),
    (
        architecture.upward_imports,
        {"leadlex._policy.a": "from leadlex._network.b import Transport", "leadlex._network.b": ""},
        ["leadlex._policy.a:1 uses leadlex._network.b"],
    ),
    (
        architecture.upward_imports,
        {"leadlex._values.a": "\nfrom leadlex import _stream", "leadlex._stream": ""},
        ["leadlex._values.a:2 uses leadlex._stream"],
    ),
    (
        architecture.upward_imports,
        {"leadlex._stream": "if TYPE_CHECKING:\n    from ._client import AsyncLeadLex", "leadlex._client": ""},
        ["leadlex._stream:2 uses leadlex._client"],
    ),
    (
        architecture.upward_imports,
        {"leadlex._stream": "from . import __version__"},
        ["leadlex._stream:1 uses leadlex"],
    ),
    (
        architecture.upward_imports,
        {"leadlex._sync": "from .sandbox import Sandbox", "leadlex.sandbox": ""},
        ["leadlex._sync:1 uses leadlex.sandbox"],
    ),
    (
        architecture.upward_imports,
        {"leadlex._client": "def chat(self):\n    from .sandbox import Sandbox", "leadlex.sandbox": ""},
        ["leadlex._client:2 uses leadlex.sandbox"],
    ),
    (
        architecture.upward_imports,
        {
            "leadlex._sync": "import leadlex._portal.generator",
            "leadlex._portal.generator": "from leadlex import _sync",
        },
        [
            "leadlex._sync:1 joins the generator, which stands alone",
            "leadlex._portal.generator:1 joins the generator, which stands alone",
        ],
    ),
    (
        architecture.upward_imports,
        {"leadlex": "from ._client import AsyncLeadLex", "leadlex._client": ""},
        ["leadlex:1 loads a name before it is used"],
    ),
    (
        architecture.upward_imports,
        {
            "leadlex": "if TYPE_CHECKING:\n    from ._client import AsyncLeadLex",
            "leadlex._client": "",
            "leadlex.sandbox": "",
            "leadlex.sandbox._app": "from .. import AsyncLeadLex\nfrom .._network.clock import Clock",
            "leadlex._network.clock": "",
        },
        [
            "leadlex.sandbox._app:1 shares leadlex AsyncLeadLex with the client",
            "leadlex.sandbox._app:2 shares leadlex._network.clock Clock with the client",
        ],
    ),
    (
        architecture.upward_imports,
        {
            "leadlex.cli": "from leadlex import LeadLex, _stream\nfrom leadlex.sandbox._app import Api",
            "leadlex._stream": "",
            "leadlex.sandbox": "",
            "leadlex.sandbox._app": "",
            "leadlex.pytest_plugin": "import leadlex.cli",
        },
        [
            "leadlex.cli:1 uses leadlex._stream, which is not public",
            "leadlex.cli:2 uses leadlex.sandbox._app, which is not public",
            "leadlex.pytest_plugin:1 uses leadlex.cli, which is not public",
        ],
    ),
    (
        architecture.private_names_taken,
        {"leadlex._client": "from ._stream import _read", "leadlex._stream": ""},
        ["leadlex._client:1 takes _read of leadlex._stream"],
    ),
    (
        architecture.imports_in_functions,
        {"leadlex._client": "def one():\n    import ssl\n\nasync def two():\n    import_module('ssl')"},
        ["leadlex._client:2 imports ssl in one", "leadlex._client:5 imports (import_module) in two"],
    ),
    (
        architecture.hidden_imports,
        {
            "leadlex._client": "if TYPE_CHECKING:\n    from ._values import models\nelse:\n    import os",
            "leadlex._values": "",
        },
        ["leadlex._client:2 hides leadlex._values"],
    ),
    (
        architecture.dependencies_out_of_place,
        {
            "leadlex._client": "import cattrs.gen, attrs, os\nfrom httpx_sse import EventSource",
            "leadlex._logging": "import structlog",
            "leadlex._portal.generator": "import attrs",
        },
        [
            "leadlex._client:1 uses cattrs",
            "leadlex._client:2 uses httpx_sse",
            "leadlex._logging:1 uses structlog",
            "leadlex._portal.generator:1 uses attrs",
        ],
    ),
    (
        architecture.circles,
        {
            "leadlex._a": "from . import _b",
            "leadlex._b": "from . import _c",
            "leadlex._c": "from . import _a",
        },
        ["leadlex._a > leadlex._b > leadlex._c > leadlex._a"],
    ),
    (
        architecture.sleepers,
        {
            "leadlex._stream": "import anyio\nanyio.sleep(1)\nfrom time import sleep\n"
            "with anyio.move_on_after(1):\n    await event.wait()",
            "leadlex._portal.bridge": "event.wait(1)\nself.clock.sleep(1)",
            "leadlex._network.clock": "anyio.sleep(1)",
        },
        ["leadlex._stream:2 sleeps", "leadlex._stream:3 sleeps", "leadlex._stream:4 sleeps"],
    ),
    (
        architecture.paths_of_the_api,
        {
            "leadlex._client": '"""`GET /v1/lexi/tasks`"""\nurl = f"/v1/lexi/tasks/{id}"',
            "leadlex._config": 'BASE_URL = "https://data.leadlex.com/functions/v1/api-gateway"',
        },
        ["leadlex._client:2 has the path '/v1/lexi/tasks/'"],
    ),
    (
        architecture.impurities,
        {"leadlex._policy.a": "import math, threading\nfrom os import getpid", "leadlex._network.b": "import time"},
        ["leadlex._policy.a:1 uses threading", "leadlex._policy.a:2 uses os"],
    ),
]


def _name(value: object) -> str:
    return getattr(value, "__name__", "")


@pytest.mark.parametrize("check", CHECKS, ids=_name)
def test_the_library_keeps_the_rules(check: Check) -> None:
    """Imports run down; dependencies, sleeping and paths of the API stay in their modules."""
    found = check(architecture.sources())
    assert not found, "\n".join([*found, CHECKS[check], "The rule is in tests/architecture.py."])


@pytest.mark.parametrize(("check", "package", "said"), BROKEN, ids=_name)
def test_a_package_that_breaks_a_rule_is_found_out(check: Check, package: Sources, said: list[str]) -> None:
    """Every check can fail, and says where."""
    assert sorted(check(package)) == sorted(said)


def test_every_check_is_shown_a_package_that_breaks_it() -> None:
    """No check is trusted that was never seen to fail."""
    assert {check for check, _, _ in BROKEN} == set(CHECKS)


def test_no_listed_import_is_gone() -> None:
    """A listed import inside of a function exists; the list does not outlive the code."""
    found = {
        (each.module, each.function, each.unit or each.target) for each in architecture.imports(architecture.sources())
    }
    assert found >= architecture.FUNCTION_IMPORTS


def test_importing_the_errors_loads_nothing_else() -> None:
    """`_errors` sees the values only while types are checked, or when they are asked for."""
    found = [each for each in architecture.imports(architecture.sources()) if each.source == "_errors"]
    at_once = [each for each in found if not (each.typing or each.function)]
    assert [each.target for each in at_once if each.unit is not None] == []


# Tests -----------------------------------------------------------------------------------------------------------

WORD = re.compile(r"\w+")


def never_run(files: Mapping[str, str]) -> list[str]:
    """Name the functions that pytest does not collect and nobody calls, and the tests in files it does not read."""
    words = Counter(word for text in files.values() for word in WORD.findall(text))
    return [
        f"{name}:{node.lineno} {node.name}"
        for name, text in files.items()
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (words[node.name] == 1 if _is_read(name) else node.name.startswith("test_"))
        if not (_is_read(name) and (node.name.startswith("test_") or _is_fixture(node)))
    ]


def _is_read(name: str) -> bool:
    return PurePath(name).name.startswith("test_")


def _is_fixture(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("fixture" in ast.unparse(each) for each in node.decorator_list)


def test_every_test_is_run() -> None:
    """A test that is misnamed would pass for ever, since nobody runs it."""
    found = never_run({str(path.relative_to(ROOT)): path.read_text("utf-8") for path in ROOT.glob("tests/**/*.py")})
    assert not found, "\n".join([*found, "Nobody runs these: a test is a function test_… in a file test_….py."])


def test_a_test_that_is_not_run_is_found() -> None:
    """What is called, collected or a fixture is run; a misnamed test, and one in a misnamed file, is not."""
    files = {
        "tests/test_a.py": "def test_it(): helper()\ndef helper(): pass\ndef tests_that(): pass\n"
        "@pytest.fixture(autouse=True)\ndef quiet(): pass\nasync def that_test(): pass",
        "tests/b.py": "def test_other(): pass\ndef offered(): pass",
    }
    assert never_run(files) == [
        "tests/test_a.py:3 tests_that",
        "tests/test_a.py:6 that_test",
        "tests/b.py:1 test_other",
    ]


# Files -------------------------------------------------------------------------------------------------------------

TOP = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "leadlex", "tests", "benchmarks"}
ELSEWHERE = re.compile(r"(?<![\w./~-])/(?:root|home|work|Users|mnt)/\w")


def paths_of_a_machine(text: str) -> list[str]:
    """Find paths that exist on somebody's machine only."""
    return [match[0] for match in ELSEWHERE.finditer(text)]


def tracked_files() -> list[str]:
    """List what is in the repository; without git there is nothing to be said."""
    run = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607
    if run.returncode:
        pytest.skip("not a git repository")
    return run.stdout.splitlines()


def test_no_file_mentions_the_place_where_it_was_written() -> None:
    """Whatever is in the repository works in any folder of any machine."""
    found = {name: paths_of_a_machine((ROOT / name).read_text("utf-8")) for name in tracked_files()}
    assert {name: paths for name, paths in found.items() if paths} == {}


def test_a_path_of_a_machine_is_found() -> None:
    """The search finds what it looks for, and leaves the paths of URLs alone."""
    home = Path("/", "home", "me").as_posix()  # so that this file itself is not found
    assert paths_of_a_machine(f"see {home} and https://example.com{home}") == [home[:7]]


def test_the_top_level_has_few_things() -> None:
    """Who opens the repository sees the package, its tests and what describes it, and nothing else."""
    assert {name.split("/")[0] for name in tracked_files() if not name.startswith(".")} <= TOP


PAGE = re.compile(r"\b[A-Z_]+\.md\b")


def test_a_page_that_is_named_is_there() -> None:
    """Whoever is sent to another page of the project finds it."""
    files = tracked_files()
    pages = {Path(name).name for name in files}
    named = {name: {*PAGE.findall((ROOT / name).read_text("utf-8"))} for name in files}
    assert {name: found - pages for name, found in named.items() if found - pages} == {}


PATH = re.compile(r"`([\w./]*(?:\.py|\.sh|\.yaml|/))`")


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_the_map_names_what_is_there(name: str) -> None:
    """Each file and folder that a guide for contributors names exists, seen from the top or from the library."""
    named = PATH.findall((ROOT / ".github" / name).read_text("utf-8"))
    assert named
    assert [
        path for path in named if not any((top / path).exists() for top in (ROOT, ROOT / "leadlex", *_LAYERS))
    ] == []


_LAYERS = [path for path in (ROOT / "leadlex").iterdir() if path.is_dir()]
