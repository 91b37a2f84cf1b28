"""Count the values of a JSON text before any of them is built: `count`.

Knows JSON's punctuation, and nothing of HTTP or of a dialect's fields. Whether the text is JSON at all, the parser
says later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Bytes looked at in one step. NumPy works on them without the interpreter's lock, so other threads go on.
_SLICE = 1 << 17
_QUOTE, _COMMA, _COLON, _OPEN_LIST = b'",:['
_NAME = re.compile(rb'"([A-Za-z_][A-Za-z0-9_.-]{0,39})"\s*:\s*\Z')
_NEAR = 80  # bytes: a field's name before its list, and what may stand between them
# Lists are counted where a dialect has them: as a field's value, in the body's object or in an object of that.
_LEVELS = (2, 3)

_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")] = 1
_STEPS[list(b"]}")] = -1
_IS_PUNCTUATION = _STEPS != 0
_IS_PUNCTUATION[[_COMMA, _COLON]] = True


@dataclass(frozen=True)
class Items:
    """A field's list and how many items were counted in it. `are_numbers` is what the first item says."""

    field: str
    n: int
    are_numbers: bool


@dataclass(frozen=True)
class Counts:
    """What was counted: `n_values` counts names of fields too, and an empty list as two.

    `longest` is the longest list that is a field's value. `end` is where the first value ends: None for a value
    without brackets, and where counting stopped before it.
    """

    n_values: int
    longest: Items | None
    end: int | None


def count(text: bytes, enough: int | None = None) -> Counts:
    """Count what parsing the first value of `text` would build, but stop at more than `enough` values.

    Takes some 10 ms for each MB, and no memory to speak of.
    """
    n_values, depth, in_string = 1, 0, False
    longest = _Longest()
    start, end = 0, None
    while start < len(text) and end is None and (enough is None or n_values <= enough):
        part = text[start : start + _SLICE]
        # subtle: backslashes escape each other in pairs from the left, so what is left of a run escapes a quote.
        part = part.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        if part.endswith(b"\\") and len(part) > 1 and start + len(part) < len(text):
            part = part[:-1]  # what it escapes is in the next part
        if in_string and b'"' not in part:  # the middle of a long text
            start += len(part)
            continue
        codes = np.frombuffer(part, np.uint8)
        is_inside = np.cumsum(codes == _QUOTE, dtype=np.uint8) & 1 != in_string
        places = np.flatnonzero(_IS_PUNCTUATION[codes] & ~is_inside)
        marks = codes[places]
        depths = np.cumsum(_STEPS[marks], dtype=np.int32) + np.int32(depth)
        closing = np.flatnonzero((depths <= 0) & (_STEPS[marks] < 0))
        if len(closing):
            n_marks = closing[0] + 1
            places, marks, depths = places[:n_marks], marks[:n_marks], depths[:n_marks]
            end = start + int(places[-1]) + 1
        n_values += int(np.count_nonzero(_STEPS[marks] >= 0))
        longest.look(start + places, marks, depths)
        if len(depths):
            depth = int(depths[-1])
        in_string = bool(is_inside[-1])
        start += len(part)
    return Counts(n_values, longest.named(text), end)


class _Longest:
    """The longest list that is a field's value, found from punctuation that comes in parts."""

    def __init__(self) -> None:
        self._place, self._n_commas = -1, -1
        self._mark_before = 0
        # Of the container that was opened last at each level: its place, -1 for no field's list, and its commas.
        self._open = dict.fromkeys(_LEVELS, (-1, 0))

    def look(self, places: NDArray[np.int64], marks: NDArray[np.uint8], depths: NDArray[np.int64]) -> None:
        """Take in the next marks, with the depth behind each."""
        if not len(marks):
            return
        before = np.concatenate(([self._mark_before], marks[:-1]))
        is_list = (marks == _OPEN_LIST) & (before == _COLON)
        self._mark_before = int(marks[-1])
        for level in _LEVELS:
            at_level = depths == level
            commas = np.cumsum(at_level & (marks == _COMMA))
            opened = np.flatnonzero(at_level & (_STEPS[marks] > 0))
            # A comma at a level belongs to the container that was opened there last.
            n_commas = np.diff(np.concatenate(([0], commas[opened], commas[-1:])))
            place, n_before = self._open[level]
            n_commas[0] += n_before
            owners = np.concatenate(([place], np.where(is_list[opened], places[opened], -1)))
            self._open[level] = int(owners[-1]), int(n_commas[-1])
            best = int(np.argmax(np.where(owners >= 0, n_commas, -1)))
            if owners[best] >= 0 and n_commas[best] > self._n_commas:
                self._place, self._n_commas = int(owners[best]), int(n_commas[best])

    def named(self, text: bytes) -> Items | None:
        """The list by its field's name; None where there is none, or the name is none that a dialect has."""
        if self._place < 0:
            return None
        name = _NAME.search(text[max(0, self._place - _NEAR) : self._place])
        first = text[self._place + 1 : self._place + _NEAR].lstrip()[:1]
        is_number = first == b"-" or first.isdigit()
        return None if name is None else Items(name[1].decode("ascii"), self._n_commas + 1, is_number)
