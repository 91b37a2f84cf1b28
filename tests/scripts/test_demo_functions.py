"""The code among the texts of the demo model: what a function does, in words, beside how."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from demo_scripts import FOLDER, imported

TEXTS = FOLDER / "texts"
MODULE = '''
class Shop:
    @property
    async def open(self, day):
        """Whether the shop
        is open on `day`.  Holidays count.

        More of it.
        """
        # the door
        return day not in self.closed


def nothing():
    """Documented, but does nothing."""


def silent(): return 1


def pay(amount):
    "Pay it"
    return r"\\d"
'''


@pytest.fixture(scope="module")
def parts() -> Iterator[SimpleNamespace]:
    with imported(TEXTS, [path.stem for path in TEXTS.glob("*.py")]) as found:
        yield found


def pairs(parts: SimpleNamespace, folder: Path, files: dict[str, str]) -> list[tuple[str, str]]:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    found = list(parts.functions.functions(folder, "**/*.py"))
    assert {(pair.kind, pair.la, pair.lb) for pair in found} <= {("code", "en", "en")}
    return [(pair.a, pair.b) for pair in found]


def test_a_function_gives_its_first_sentence_and_its_code(parts, tmp_path):
    code = "async def open(self, day):\n    # the door\n    return day not in self.closed"
    assert pairs(parts, tmp_path, {"a/shop.py": MODULE}) == [
        ("Pay it", 'def pay(amount):\n    return r"\\d"'),
        ("Whether the shop is open on `day`.", code),
    ]


def test_tests_and_what_is_not_python_are_left_out(parts, tmp_path):
    assert pairs(parts, tmp_path, {"a/tests/shop.py": MODULE, "old.py": "print 'hello'", "notes.txt": MODULE}) == []


def test_long_code_is_cut_after_a_line(parts, tmp_path):
    lines = [f"    step_{number} = work({number})" for number in range(100)]
    content = "\n".join(["def steps():", '    """Work step by step."""', *lines])
    ((_, code),) = pairs(parts, tmp_path, {"steps.py": content})
    assert ("def steps():\n" + "\n".join(lines)).startswith(code + "\n")
    assert 760 < len(code) <= 800


def test_code_stays_as_it_is_behind_plain_words(parts):
    pair = parts.lines.Pair
    code = 'def f(x):\n    return {"a": x_1[0]}  # <b>'
    (kept,) = parts.cleaning.clean(pair("code", "en", "Give the ``first`` of them.", "en", code))
    assert kept == pair("code", "en", "Give the first of them.", "en", code)
    for about in ("f(x) -> {}", "给出第一个。", "x", "word " * 100):
        assert list(parts.cleaning.clean(pair("code", "en", about, "en", code))) == []
