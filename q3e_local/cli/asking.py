"""Ask a person before something is deleted."""

from __future__ import annotations

import sys

import click

from q3e_local.cli.terminal import say
from q3e_local.errors import OptionError


def is_sure(question: str, yes: bool, stays: str = "nothing was removed") -> bool:
    """Whether to go on: with --yes without a question, else as the user answers. After a no, print `stays`.

    Raises OptionError where nobody is there to answer.
    """
    if yes:
        return True
    try:
        answer = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin is not None and sys.stdin.isatty():
            raise
        raise OptionError(f"nobody answered, so {stays}; give --yes") from None
    if not answer:
        say(stays)
    return answer
