"""`lexi.chat` itself as a tool: of MCP, and of agent libraries that read its signature and its docstring."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from leadlex import AsyncLeadLex
from leadlex.sandbox import Sandbox
from tests.portal.test_frameworks import needs
from tests.support.resources import no_leaks

#: What other libraries warn of as they load is not leadlex's to mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

QUESTION = "Summarize my pipeline"


async def pydantic_ai(chat: Any) -> tuple[dict[str, Any], Any]:
    """Give it to an agent of pydantic-ai, whose model calls each tool once."""
    agents, models = importlib.import_module("pydantic_ai"), importlib.import_module("pydantic_ai.models.function")
    messages = importlib.import_module("pydantic_ai.messages")
    seen = dict[str, Any]()

    def model(history: list[Any], info: Any) -> Any:
        seen["schema"] = info.function_tools[0].parameters_json_schema
        returned = [part for part in history[-1].parts if isinstance(part, messages.ToolReturnPart)]
        if returned:
            seen["reply"] = returned[0].model_response_str()
            return messages.ModelResponse([messages.TextPart("Done.")])
        return messages.ModelResponse([messages.ToolCallPart("chat", {"message": QUESTION})])

    await agents.Agent(models.FunctionModel(model), tools=[chat]).run("How is my pipeline?")
    return seen["schema"], json.loads(seen["reply"])


async def langchain(chat: Any) -> tuple[dict[str, Any], Any]:
    """Make a structured tool of LangChain's of it."""
    tools = importlib.import_module("langchain_core.tools")
    tool = tools.StructuredTool.from_function(coroutine=chat, parse_docstring=False)
    reply = await tool.ainvoke({"message": QUESTION})
    return tool.args_schema.model_json_schema(), reply.to_dict()


async def openai_agents(chat: Any) -> tuple[dict[str, Any], Any]:
    """Make a function tool of OpenAI's agents of it."""
    agents = importlib.import_module("agents")
    contexts = importlib.import_module("agents.tool_context")
    tool = agents.function_tool(chat, strict_mode=False)
    arguments = json.dumps({"message": QUESTION})
    context = contexts.ToolContext(context=None, tool_name="chat", tool_call_id="1", tool_arguments=arguments)
    reply = await tool.on_invoke_tool(context, arguments)
    return tool.params_json_schema, reply.to_dict()


LIBRARIES = [
    pytest.param(pydantic_ai, id="pydantic-ai", marks=needs("pydantic_ai")),
    pytest.param(langchain, id="langchain", marks=needs("langchain_core")),
    pytest.param(openai_agents, id="openai-agents", marks=needs("agents")),
]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_tool(library: Callable[[Any], Coroutine[Any, Any, tuple[dict[str, Any], Any]]]) -> None:
    """An agent library reads what `chat` takes, calls it, and hands on what it gives."""

    async def main() -> tuple[dict[str, Any], Any]:
        async with AsyncLeadLex(sandbox.api_key, base_url=sandbox.url) as lexi:
            return await library(lexi.chat)

    with Sandbox(pace=0) as sandbox:
        schema, reply = asyncio.run(main())
        assert len(sandbox.charges) == 1
    assert schema["required"] == ["message"]
    assert {*schema["properties"]} == {"message", "conversation_id", "context"}
    assert "4 deals" in reply["response"]


SERVER = """
import asyncio
import leadlex
from mcp.server import MCPServer as Server
server = Server("crm")
lexi = leadlex.AsyncLeadLex()
@server.tool()
async def ask_lexi(question: str) -> str:
    "Ask the CRM's assistant."
    return (await lexi.stream_chat(question).final_reply()).response
server.run("stdio")
"""


@needs("mcp")
def test_an_mcp_server(tmp_path: Any) -> None:
    """A tool of an MCP server over stdio asks Lexi; a refusal is the tool's error."""
    mcp = importlib.import_module("mcp")
    stdio = importlib.import_module("mcp.client.stdio")

    async def main() -> list[Any]:
        parameters = stdio.StdioServerParameters(command=sys.executable, args=[str(program)], env=variables)
        async with stdio.stdio_client(parameters) as (read, write), mcp.ClientSession(read, write) as session:
            await session.initialize()
            first = await session.call_tool("ask_lexi", {"question": QUESTION})
            sandbox.fail_next("no_credits")
            return [first, await session.call_tool("ask_lexi", {"question": QUESTION})]

    program = tmp_path / "server.py"
    program.write_text(SERVER, "utf-8")
    with Sandbox(pace=0) as sandbox, no_leaks():
        variables = {**os.environ, "LEADLEX_API_KEY": sandbox.api_key, "LEADLEX_BASE_URL": sandbox.url}
        answered, refused = asyncio.run(main())
        assert len(sandbox.charges) == 1
    assert "4 deals" in answered.content[0].text
    assert (answered.is_error, refused.is_error) == (False, True)
