"""`Survey`: what is wrong with the texts of a source, counted and said in one sentence with what to do about it.

Knows the options that help; nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from q3e_local.cli.terminal import say
from q3e_local.cli.texts.source import Source, Tell
from q3e_local.errors import InputError
from q3e_local.reading.records import Item

Blank = Literal["zeros", "skip", "error"]
"""What becomes of a blank text: a row of zeros, nothing, or an error."""

# What commands offer for blank texts.
LEAVE_OUT = "leave blank texts out with --blank skip"
LEAVE_OUT_OR_ZEROS = f"{LEAVE_OUT}, or embed them as zeros with --blank zeros"
_NAMED_AT_MOST = 5


class Survey:
    """Counts of items as they are added. `blank_advice` is what the command offers for blank texts, if anything."""

    def __init__(self, blank_advice: str = "", blank_is_wrong: bool = True) -> None:
        self._blank_advice, self._blank_is_wrong = blank_advice, blank_is_wrong
        self.n_items = self.n_texts = self.n_wrong = 0
        self._wrong: list[Item] = []  # the first
        self._has_all_blank = True
        self._absent: Item | None = None  # the first record without the field
        self._n_absent = 0

    @property
    def n_left_out(self) -> int:
        """Blank texts with which nothing is wrong."""
        return self.n_items - self.n_texts - self.n_wrong

    def add(self, item: Item) -> None:
        """Count an item."""
        self.n_items += 1
        if item.cause == "absent":
            self._absent = self._absent or item
            self._n_absent += 1
        if item.problem is None:
            self.n_texts += 1
        elif not item.is_blank or self._blank_is_wrong:
            self.n_wrong += 1
            self._has_all_blank &= item.is_blank
            if len(self._wrong) < _NAMED_AT_MOST:
                self._wrong.append(item)

    def error(self) -> InputError | None:
        """What is wrong, if anything is."""
        if not self.n_items:
            return InputError("there are no texts in the input")
        if self._absent is not None and self._n_absent == self.n_items:  # a mistyped name, whatever --blank says
            return InputError(f"{self._absent.id} {self._absent.problem}")
        if not self._wrong:
            return None
        return InputError(f"{self._summary()}{advice(self._wrong, self.n_texts > 0, self._blank_advice)}")

    def _summary(self) -> str:
        first = self._wrong[0]
        if self.n_wrong == 1:
            return f"{first.id} {first.problem}"
        if self._has_all_blank:
            return f"{self.n_wrong:,} of {self.n_items:,} texts are blank: {self._ids(self._wrong)}"
        others = self._ids(self._wrong[1:])
        return f"{first.id} {first.problem}; {self.n_wrong - 1:,} more of {self.n_items:,} texts fail: {others}"

    def _ids(self, items: Sequence[Item]) -> str:
        n_more = self.n_wrong - len(self._wrong)
        return ", ".join(item.id for item in items) + (f" and {n_more:,} more" if n_more else "")


def advice(wrong: Sequence[Item], has_others: bool, blank_advice: str) -> str:
    """What to do about items that have no text: nothing of what would leave no text at all."""
    causes = {item.cause for item in wrong}
    ways = []
    if "encoding" in causes:
        ways.append("name its encoding with --encoding, such as gb18030, utf-16 or cp1252")
    if "blank" in causes and blank_advice and has_others:
        ways.append(blank_advice)
    if has_others and (causes != {"blank"} or not blank_advice):
        way = f"go on without {'it' if len(wrong) == 1 else 'them'}: --skip-errors"
        ways.append(f"or {way}" if ways else way)
    return "".join(f"; {way}" for way in ways)


def say_skipped(lines: Sequence[str], n_most: int) -> None:
    """Say on stderr which texts were left out, the first `n_most` of them by their lines."""
    if lines:
        say(f"{len(lines):,} skipped:")
    for line in lines[:n_most]:
        say(f"  {line}")
    if len(lines) > n_most:
        say(f"  and {len(lines) - n_most:,} more")


def check(source: Source, blank: Blank | None, skip: bool, tell: Tell) -> int | None:
    """Read all records once, before a model is loaded for them. Return how many rows the output will have.

    Files that are one text each are counted and not read. None of what can be read only once, as stdin. With `skip`
    what is wrong is left to the run, which lists it. Raises InputError for what is wrong, for no text at all, and for
    a field to keep that no record has.
    """
    if not source.can_be_read_twice:
        return None
    if source.layout.is_whole:
        return len(source.paths) + len(source.texts)
    survey, kept = Survey(LEAVE_OUT_OR_ZEROS, blank_is_wrong=blank in (None, "error")), _Kept(source)
    for item in source.read(tell):
        survey.add(item)
        kept.add(item)
    error = survey.error()
    if error is not None and (not skip or not survey.n_items):
        raise error
    if survey.n_texts:
        kept.check()
    if not survey.n_texts and not skip:
        raise InputError("there are no texts in the input: all of them are blank")
    return survey.n_items if blank == "zeros" else survey.n_texts


@dataclass(frozen=True)
class AllTexts:
    """All texts of a source.

    `items` are the texts, each with its number in the source; `skipped` has a line about each that could not be read;
    `n_blank` counts blank ones that were left out and with which nothing is wrong.
    """

    items: list[tuple[int, Item]]
    skipped: list[str]
    n_blank: int


def read_all(source: Source, skip: bool, tell: Tell, has_blank: bool = False, blank_advice: str = "") -> AllTexts:
    """All texts of a source.

    Raises InputError for no text at all, for a field to keep that no record has, and, unless with `skip`, for a text
    that cannot be read. With `has_blank` blank texts are left out, and nothing is wrong with them; else
    `blank_advice` is what the command offers for them.
    """
    items: list[tuple[int, Item]] = []
    skipped: list[str] = []
    survey, kept = Survey(blank_advice, blank_is_wrong=not has_blank), _Kept(source)
    for index, item in enumerate(source.read(tell)):
        survey.add(item)
        kept.add(item)
        if item.problem is None:
            items.append((index, item))
        elif skip and not (has_blank and item.is_blank):
            skipped.append(f"{item.id} {item.problem}")
    error = survey.error()
    if error is not None and not skip:
        raise error
    if not items:
        why = skipped[0] if skipped else "all of them are blank" if survey.n_left_out else ""
        raise InputError("there are no texts in the input" + (f": {why}" if why else ""))
    kept.check()
    return AllTexts(items, skipped, survey.n_left_out)


class _Kept:
    """The fields of JSON Lines to keep that no record had so far."""

    def __init__(self, source: Source) -> None:
        self._missing = dict.fromkeys(source.layout.keep if source.layout.jsonl is not None else ())

    def add(self, item: Item) -> None:
        for name in item.kept if self._missing else ():
            self._missing.pop(name, None)

    def check(self) -> None:
        """Raise InputError for a field that none had."""
        if self._missing:
            raise InputError(f"no record has the field {next(iter(self._missing))!r} to keep")
