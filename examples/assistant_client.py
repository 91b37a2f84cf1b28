"""Ask an index as an assistant does. Make it first: q3e-local index examples/notes -m demo --db notes.q3e"""

import asyncio
import sys

from mcp import Client, StdioServerParameters

QUESTION = " ".join(sys.argv[1:]) or "the website was down"
SERVER = StdioServerParameters(command=sys.executable, args=["-m", "q3e_local", "mcp", "notes.q3e"])


async def main():
    async with Client(SERVER) as client:
        found = await client.call_tool("search", {"query": QUESTION, "limit": 1})
        print(found.content[0].text)


asyncio.run(main())
