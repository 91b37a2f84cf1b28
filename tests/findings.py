"""What `q3e-local doctor` finds on a machine with room, and a stand-in for the child process in which it looks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from command import run

from q3e_local.checks.doctor import NativeLooks
from q3e_local.checks.finding import Finding


class InThisProcess:
    """In the place of a child: quicker, and what a test changes of llama.cpp shows."""

    is_alive = True

    def __init__(self, make: Callable[[], NativeLooks]) -> None:
        self._looks = make()

    def ask(self, method: str, timeout_s: float | None = None) -> list[Finding] | None:
        return getattr(self._looks, method)()

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def findings() -> tuple[int, list[dict[str, Any]]]:
    result = run("doctor", "--json")
    assert result.stderr == ""
    return result.exit_code, json.loads(result.stdout)


def problem() -> dict[str, Any]:
    """The only finding that is not well."""
    code, found = findings()
    assert code == 1
    (finding,) = [finding for finding in found if not finding["ok"]]
    assert finding["advice"]
    return finding


def advice_of(found: list[dict[str, Any]]) -> dict[str, str]:
    return {finding["what"]: finding["advice"] for finding in found if finding["advice"]}
