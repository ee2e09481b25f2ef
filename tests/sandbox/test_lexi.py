"""What the sandbox's Lexi says and does."""

import httpx


def test_finds_20_ceos(http: httpx.Client) -> None:
    """The documentation's first prompt finds 20 people and asks for approval."""
    answer = http.post("/v1/lexi/chat", json={"message": "Find me 20 CEOs at law firms in New York"})
    assert answer.json()["data"]["requires_approval"] is True
    assert "\n20. " in answer.json()["data"]["response"]
