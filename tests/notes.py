"""Four notes for tests of the commands about indexes, and the hits of a search in them."""

from __future__ import annotations

import json
from pathlib import Path

from command import run

NOTES = {
    "outage.md": "# Outage\n\nThe payment service refused connections at 09:42. The pool was full.\n\n"
    "## Actions\n\nTomasz moves the report job PRJ-2041 to the replica.",
    "budget.md": "# 预算\n\n第三季度预算超支百分之六。云服务器费用太高。展会的展台临时加大。",
    "cat.txt": "The neighbour fed the cat. It was grey and slept all day.",
    "papers/plan.txt": "We plant beans in May.",
}


def found(*arguments: object, **options: object) -> list[dict]:
    """The hits of `q3e-local search ARGUMENTS`."""
    result = run("search", *arguments, **options)
    assert (result.exit_code, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]


def names(hits: list[dict]) -> list[str]:
    return [Path(hit["file"]).name for hit in hits]
