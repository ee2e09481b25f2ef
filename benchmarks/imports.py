"""Programs that measure an import: each is run by a bare interpreter, which has loaded nothing else.

`IMPORT` and `FIRST_CLIENT` take the module and an expression that makes a client of it; they print JSON.
"""

from __future__ import annotations

from typing import Final

IMPORT: Final = """
import time
began = time.perf_counter()
import {module}
took = time.perf_counter() - began
print('{{"time": %f}}' % (took * 1000))
"""

FIRST_CLIENT: Final = """
import time
began = time.perf_counter()
import {module}
client = {make}
took = time.perf_counter() - began
print('{{"time": %f}}' % (took * 1000))
"""

# What a first call loads after the constructor, in the running loop. rich is no sign of an extra: httpx loads it itself
# where it is there.
LOADED: Final = """
import asyncio, json, sys
import leadlex

async def main():
    async with leadlex.AsyncLeadLex("wbk_invented", base_url={url!r}) as lexi:
        before = {{*sys.modules}}
        await lexi.chat("Hi")
        await lexi.stream_chat("Hi").final_reply()
        late = {{*sys.modules}} - before
        extras = {{*sys.modules}} & {{"aiohttp", "starlette", "typer", "uvicorn"}}
        print(json.dumps({{"late": len(late), "extras": len(extras)}}))

asyncio.run(main())
"""

CLIENTS: Final = {
    "leadlex": ("leadlex", 'leadlex.AsyncLeadLex("wbk_invented")'),
    "httpx": ("httpx", "httpx.AsyncClient()"),
    "openai": ("openai", 'openai.AsyncOpenAI(api_key="sk-invented")'),
    "anthropic": ("anthropic", 'anthropic.AsyncAnthropic(api_key="invented")'),
}


def program(job: str, client: str, url: str) -> str:
    """Write the program that does a job for a client."""
    module, make = CLIENTS[client]
    return PROGRAMS[job].format(module=module, make=make, url=f"{url}/20-1-0")


PROGRAMS: Final = {"import": IMPORT, "first_client": FIRST_CLIENT, "loaded": LOADED}
