"""Which program has the port that a server wants: one short request over HTTP.

Knows how q3e-local and Ollama answer at their root; nothing of listening.
"""

from __future__ import annotations

import http.client
from contextlib import closing, suppress

from q3e_local.wording.address import Address

_ASK_S = 0.5


def who_listens(host: str, port: int) -> str | None:
    """`q3e-local` or `Ollama` where one of them answers, None where nobody does or it is another program."""
    connection = http.client.HTTPConnection(Address(host=host).to_connect().host, port, timeout=_ASK_S)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/", headers={"Connection": "close"})
        answer = connection.getresponse()
        # A q3e-local server says its name in every answer, in a refusal without a key too.
        if answer.getheader("server", "").startswith("q3e-local/"):
            return "q3e-local"
        if answer.read(100).startswith(b"Ollama is running"):
            return "Ollama"
    return None
