"""A thread remembers its conversation."""

from __future__ import annotations

import gc

import leadlex
from leadlex.sandbox import Sandbox


def test_a_thread_learns_the_id_of_a_dropped_stream() -> None:
    """The conversation goes on even where nothing holds the first stream any more."""
    with (
        Sandbox(pace=0) as sandbox,
        leadlex.LeadLex(sandbox.api_key, base_url=sandbox.url) as client,
    ):
        thread = client.thread()
        first = thread.stream_chat("Find me 20 CEOs at law firms in New York").final_reply()
        gc.collect()
        assert thread.conversation_id == first.conversation_id
        assert "of the 20" in thread.stream_chat("Filter to only Brooklyn").final_reply().response
