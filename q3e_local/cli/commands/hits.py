"""How hits are shown: text for people, with the best sentence marked, or JSON Lines.

Knows terminals and layouts; nothing of how hits were found.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from q3e_local.cli.writing.show import from_here, print_json, visible

if TYPE_CHECKING:
    from rich.text import Text

    from q3e_local.search.best_sentence import Best
    from q3e_local.search.index import Hit

# Characters of a passage in text for people: a longer one is shortened around its best sentence.
_SHOWN = 600
_BEFORE_BEST = 160
_WIDTH = 110  # longer lines are hard to read
_LONG_LINE_BYTES = 60
_ENDS_CODE = "{}[](),;:\\"
_GOES_ON = re.compile(r"(?!\d+[.)]\s)\w")
# A piece that no line break may split: a word, or a character with the closing marks after it.
_UNBROKEN = re.compile(
    r"(?:[\u2e80-\U0003ffff]|[^\s\u2e80-\U0003ffff]+)[，。；：！？、）」』》】”’…«]*[^\S\n]*\n?|\s"  # noqa: RUF001
)
_NOTHING = "\0"  # a character that no text has


def print_records(hits: Sequence[Hit], best: Sequence[Best | None]) -> None:
    """Print a JSON object a line."""
    from q3e_local.search.hits import as_record

    for hit, span in zip(hits, best, strict=True):
        fields = as_record(hit) | {"best": None if span is None else {"start": span.start, "end": span.end}}
        print_json(fields)


def print_text(hits: Sequence[Hit], best: Sequence[Best | None]) -> None:
    """Print rank, score and place of each hit, then the passage; off a terminal the best sentence stands in »«.

    Where a hit of the first stage has a lower score than the next, each hit also says its ranks by words and by
    meaning, as the reason. A hit of two stages says how well it answers, and its place before.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    indent = len(str(len(hits))) + 2
    of_first_stage = sorted(hits, key=lambda hit: hit.rank_before or 0)
    is_explained = all(_explains(hit, after) for hit, after in pairwise(of_first_stage))
    for number, (hit, span) in enumerate(zip(hits, best, strict=True), 1):
        score, reasons = _score_and_reasons(hit, with_ranks=not is_explained)
        head = Text.assemble(
            (f"{number:>{indent - 2}}", "bold"), "  ", (score, "green"),
            (f" ({reasons})" if reasons else "", "dim"), "  ", (_place(hit), "cyan"),
            ("  " + visible(" > ".join(hit.headings)) if hit.headings else "", "dim"),
        )  # fmt: skip
        console.print(head, soft_wrap=True)
        passage = _passage(hit.text, span, is_plain=not console.is_terminal)
        for line in passage.divide(_breaks(passage.plain, max(20, min(console.width, _WIDTH) - indent))):
            line.rstrip()
            console.print(Text(" " * indent if line.plain else ""), line, sep="", soft_wrap=True)
        if number < len(hits):
            console.print()


def _explains(hit: Hit, after: Hit) -> bool:
    """Whether the scores say why a hit stands before another. Without a model there are none to say anything else."""
    return _is_by_words(hit) or hit.score >= after.score


def _is_by_words(hit: Hit) -> bool:
    return hit.score != hit.score  # not a number: words were searched without a model


def _score_and_reasons(hit: Hit, with_ranks: bool) -> tuple[str, str]:
    """What is shown first of a hit, and why it stands where it does: `0.349` and `rerank 0.993, was 4th`.

    `with_ranks` adds its ranks in the rankings that were fused, which explain its place in the first stage.
    """
    ranks = _ranks(hit) if with_ranks else ""
    if hit.rank_before is None:
        return "words" if _is_by_words(hit) else f"{hit.score:.3f}", ranks
    read = "not read" if hit.rerank is None else f"rerank {hit.rerank:.3f}"
    was = f"was {_ordinal(hit.rank_before)}"
    if _is_by_words(hit):
        return read, f"{was} by words"
    return f"{hit.score:.3f}", f"{read}, {was}{f': {ranks}' if ranks else ''}"


def _ranks(hit: Hit) -> str:
    """The ranks of a hit in the rankings that were fused: `words 1st, meaning 4th`."""
    ranks = {"exact words": hit.letters_rank, "words": hit.words_rank, "meaning": hit.vectors_rank}
    return ", ".join(f"{name} {_ordinal(rank)}" for name, rank in ranks.items() if rank is not None)


def _ordinal(n: int) -> str:
    ending = "th" if 10 < n % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n:,}{ending}"


def _place(hit: Hit) -> str:
    """`notes/a.md:12`, `paper.pdf, page 3`, or the id of a text that is from no file."""
    if hit.file is None:
        return visible(hit.id)
    name = visible(from_here(hit.file))
    if hit.line is not None:
        return f"{name}:{hit.line}"
    return f"{name}, page {hit.page}" if hit.page is not None else name


def _passage(text: str, best: Best | None, is_plain: bool) -> Text:
    from rich.text import Text

    marked = (best.start, best.end) if best is not None else (0, 0)
    start, end = _window(text, *marked)
    # A part of the mark may lie outside of what is shown.
    first, last = max(start, marked[0]), max(start, min(end, marked[1]))
    opening, closing = ("»", "«") if is_plain and best is not None else ("", "")
    flowing = _flowing(text)
    before, sentence, after = (_printable(flowing[a:b]) for a, b in pairwise((start, first, last, end)))
    before, after = ("…" if start else "") + before, after + ("…" if end < len(text) else "")
    return Text.assemble(before, opening, (sentence, "bold yellow"), closing, after)


def _window(text: str, best_start: int, best_end: int) -> tuple[int, int]:
    """Where the shown part of a passage begins and ends: the best sentence, and text around it."""
    if len(text) <= _SHOWN:
        return 0, len(text)
    start = max(0, min(best_start - _BEFORE_BEST, len(text) - _SHOWN))
    end = min(len(text), start + _SHOWN)
    return (text.find(" ", start, best_start) + 1 or start) if start else 0, end


def _breaks(text: str, width: int) -> list[int]:
    """Where lines of this width begin: between words, or between characters where writing has no spaces."""
    from rich.cells import cell_len

    breaks, column = [], 0
    for piece in _UNBROKEN.finditer(text):
        n_cells = cell_len(piece[0].rstrip())
        if column and column + n_cells > width:
            breaks.append(piece.start())
            column = 0
        if piece[0].endswith("\n"):
            breaks.append(piece.end())
            column = 0
        else:
            column += cell_len(piece[0])
    return breaks


def _flowing(text: str) -> str:
    """The text with its prose unwrapped and its length kept, so that it can be wrapped at the terminal's width.

    A long line goes on in the next line if that begins with a word; code and lists stay as they are.
    """
    lines = text.split("\n")
    joined = [lines[0]]
    for before, line in pairwise(lines):
        goes_on = len(before.encode()) >= _LONG_LINE_BYTES and _GOES_ON.match(line) and before[-1] not in _ENDS_CODE
        # Chinese goes on without a space.
        joined += [(_NOTHING if line[0] >= "\u2e80" else " ") if goes_on else "\n", line]
    return "".join(joined)


def _printable(text: str) -> str:
    """The text without characters that could steer the terminal."""
    text = text.replace(_NOTHING, "").expandtabs(4)
    return "\n".join(visible(line) for line in text.split("\n"))
