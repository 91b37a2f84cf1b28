"""How long a request wants its model to stay loaded, as Ollama's clients write it.

Knows the values of a `keep_alive` field only.
"""

from __future__ import annotations

from typing import Any

from q3e_local.server.dialects.body import BadRequestError
from q3e_local.server.settings import duration_s

NEVER = -1.0  # as ServiceRequest.keep_alive_s has it: never unload

# A Go duration is 64 bits of nanoseconds, some 292 years; whoever asks for more means for ever.
_MAX_S = 2**63 / 1e9


def keep_alive_s(value: Any) -> float | None:
    """A number of seconds or a duration such as `1h30m`, in seconds.

    None: leave it as it is; 0: unload afterwards; NEVER: do not unload. Raises BadRequestError for anything else.
    """
    if value is None:
        return None
    seconds = None
    if isinstance(value, str):
        seconds = duration_s(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    if seconds is None:
        raise BadRequestError("keep_alive must be seconds or a duration such as 10m, 1h30m, 0 or -1s", "keep_alive")
    return seconds if 0 <= seconds <= _MAX_S else NEVER
