"""The sandbox against its own copy of the schema."""

# schemathesis leaves some of its types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUntypedFunctionDecorator=false

import uuid
from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import response_schema_conformance

from leadlex import sandbox as package
from leadlex.sandbox import Sandbox

SCHEMA = schemathesis.openapi.from_path(f"{package.__path__[0]}/lexi.openapi.yaml")
# Rejecting unknown properties is not part of the contract.
SCHEMA.config.generation.allow_extra_parameters = False


@pytest.fixture(scope="module")
def served() -> Iterator[Sandbox]:
    """Start one sandbox for all examples."""
    with Sandbox(pace=0, task_seconds=0, credits=10**6, quota=10**6) as sandbox:
        yield sandbox


@SCHEMA.parametrize()
@settings(max_examples=10, deadline=None)
def test_answers_as_the_schema_says(case: Case[Any], served: Sandbox) -> None:
    """Every answer to a right or wrong request has a status, headers and a body of the schema."""
    body = cast("dict[str, Any]", case.body if isinstance(case.body, dict) else {})
    if body.get("context", {}) is None:
        return  # against the schema, but null and absent mean the same
    if case.meta and case.meta.generation.mode.is_positive:
        name_what_exists(case, body, served)
    case.call_and_validate(
        base_url=served.url,
        headers={"Authorization": f"Bearer {served.api_key}"},
        # The schema calls the stream a string; schemathesis takes that for each of its events.
        excluded_checks=[response_schema_conformance] if case.path.endswith("/stream") else [],
    )


def name_what_exists(case: Case[Any], body: dict[str, Any], served: Sandbox) -> None:
    """Put ids in place of invented ones: a schema can't say that something must exist, or be used once."""
    conversation_id = served.add_conversation("An example", "Where is Jane Doe?", "In New York.")
    if "{id}" in case.path:
        is_task = case.path.startswith("/v1/lexi/tasks")
        case.path_parameters["id"] = new_task(served) if is_task else conversation_id
    for holder in (body, body.get("context", {})):
        if holder.get("conversation_id") is not None:
            holder["conversation_id"] = conversation_id
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())


def new_task(served: Sandbox) -> str:
    """Let Lexi propose a task."""
    headers = {"Authorization": f"Bearer {served.api_key}"}
    message = {"message": "Find CTOs at SaaS companies"}
    answer = httpx.post(f"{served.url}/v1/lexi/chat", json=message, headers=headers)
    return str(answer.json()["data"]["task_id"])


def test_serves_its_schema(sandbox: Sandbox) -> None:
    """The contract can be fetched from the sandbox, without a key."""
    assert httpx.get(f"{sandbox.url}/openapi.yaml").text.startswith("openapi: 3.1.0")
