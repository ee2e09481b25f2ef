"""The faces of the fault matrix: rows about the wire run over aiohttp too."""

from __future__ import annotations

import pytest

from tests.support.faces import FACES, OVER_AIOHTTP, Face

#: Tables whose rows depend on who moves the bytes.
_WIRE = frozenset({"test_a_connect", "test_b_tls", "test_c_http", "test_g_time"})


@pytest.fixture
def face(request: pytest.FixtureRequest) -> Face:
    """Give each face in turn."""
    found: Face = request.param
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with each face that tells something of its own."""
    if "face" in metafunc.fixturenames:
        table = str(getattr(metafunc.module, "__name__", "")).rpartition(".")[2]
        faces = [*FACES, OVER_AIOHTTP] if table in _WIRE else FACES
        metafunc.parametrize("face", faces, ids=lambda face: face.name, indirect=True)
