"""Turn whatever a parser of somebody else's raises on a broken file into an InputError, and keep it quiet.

The one place that catches everything; knows no parser.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from q3e_local.errors import InputError
from q3e_local.wording.html_table import shortened

_LENGTH_MAX = 160  # of the parser's own words, which may quote half of the file


@contextmanager
def parsing(what: str) -> Iterator[None]:
    """Read a file as `what` ("PDF", "Word document"); its failure is an InputError that names the exception's class.

    Of a file made to break parsers, RecursionError and MemoryError are failures like any other.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of flaws that the parser can read over
            yield
    except InputError:
        raise
    except Exception as error:
        said = shortened(str(error), _LENGTH_MAX).rstrip(".")
        why = f"{type(error).__name__}: {said}" if said else type(error).__name__
        raise InputError(f"cannot be read as {what} ({why}); it may be damaged, save it again") from error
