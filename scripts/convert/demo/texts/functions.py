"""Reader of Python: the first sentence about a function, and its code."""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

from lines import Pair

LONGEST = 800  # characters of code


def without_docstring(source: list[str], function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The lines of a function but for its docstring, cut after a whole line."""
    docstring = function.body[0]
    last = docstring.end_lineno or docstring.lineno
    code = source[function.lineno - 1 : docstring.lineno - 1] + source[last : function.end_lineno]
    kept: list[str] = []
    for line in textwrap.dedent("\n".join(code)).split("\n"):
        if sum(map(len, kept)) + len(kept) + len(line) > LONGEST:
            break
        kept.append(line)
    return "\n".join(kept).rstrip()


def functions(tree: Path, files: str) -> Iterator[Pair]:
    """Functions that have a docstring and do something; those of tests are left out."""
    for path in sorted(tree.glob(files)):
        if "tests" in path.parts:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of strings with a backslash
                module = ast.parse(text)
        except SyntaxError:
            continue
        source = text.split("\n")
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(node.body) > 1:
                first = re.split(r"(?<=[.!?])\s|\n\s*\n", (ast.get_docstring(node) or "").strip())[0]
                code = without_docstring(source, node)
                if first and code:  # none where all of a function stands on the docstring's line
                    yield Pair("code", "en", re.sub(r"\s+", " ", first), "en", code)
