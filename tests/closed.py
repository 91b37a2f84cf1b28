"""What the system answers for a file or folder that may not be used: put in place of one of its functions."""

from __future__ import annotations

from typing import NoReturn


def closed(*_: object, **__: object) -> NoReturn:
    raise PermissionError(13, "Permission denied")
