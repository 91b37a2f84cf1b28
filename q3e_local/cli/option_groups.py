"""Options that several commands share, and their values as one parameter of the command.

Knows click's decorators; nothing of what the options mean.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
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


def as_one(kind: type[Any], parameter: str) -> Decorator:
    """Pass the options that are fields of the dataclass `kind` to the command as one object."""
    names = {field.name for field in fields(kind)}

    def decorated(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            values = {name: options.pop(name) for name in names & options.keys()}
            return command(*arguments, **{parameter: kind(**values)}, **options)

        return wrapped

    return decorated
