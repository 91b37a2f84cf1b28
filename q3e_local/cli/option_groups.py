"""Options that several commands share, and their values as one parameter of the command.

Knows click's decorators; nothing of what the options mean.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


def group(*decorators: Decorator) -> Decorator:
    """Apply all decorators; the help shows their options in this order."""

    def decorated(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorated


def as_one(make: Callable[..., Any], parameter: str) -> Decorator:
    """Pass what `make`, a dataclass or a function, makes of the options named like its parameters."""
    names = inspect.signature(make).parameters.keys()

    def decorated(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            values = {name: options.pop(name) for name in names & options.keys()}
            return command(*arguments, **{parameter: make(**values)}, **options)

        return wrapped

    return decorated
