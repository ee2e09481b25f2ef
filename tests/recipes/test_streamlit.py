"""Lexi's words in a Streamlit app, as it is run by Streamlit itself."""

from __future__ import annotations

import importlib
from collections.abc import MutableMapping

import pytest

from leadlex.sandbox import Sandbox
from tests.portal.test_frameworks import needs

#: What Streamlit warns of as it loads is not leadlex's to mend.
pytestmark = [pytest.mark.filterwarnings("ignore"), needs("streamlit")]

SYNC = """
import leadlex, streamlit as st
with leadlex.LeadLex() as lexi:
    st.session_state["said"] = st.write_stream(lexi.stream_chat("Hi").text_stream)
"""

ASYNC = """
import leadlex, streamlit as st
lexi = leadlex.AsyncLeadLex()
async def words():
    async with lexi.stream_chat("Hi") as stream:
        async for delta in stream.text_stream:
            yield delta
st.session_state["said"] = st.write_stream(words)
"""


@pytest.mark.parametrize("source", [SYNC, ASYNC], ids=["sync", "async"])
def test_write_stream(source: str, environ: MutableMapping[str, str]) -> None:
    """`write_stream` takes the text of a sync client's stream, and a generator of the async one's."""
    testing = importlib.import_module("streamlit.testing.v1")
    with Sandbox(pace=0) as sandbox:
        environ["LEADLEX_API_KEY"], environ["LEADLEX_BASE_URL"] = sandbox.api_key, sandbox.url
        app = testing.AppTest.from_string(source, default_timeout=30).run()
    assert not app.exception
    assert "Lexi" in app.session_state["said"]
    assert app.markdown[0].value == app.session_state["said"]
