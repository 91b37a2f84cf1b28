"""What the tests of scripts/bench/compare.py share."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from comparing import imported_parts


@pytest.fixture(scope="module")
def parts() -> Iterator[SimpleNamespace]:
    """The modules of the comparison, which the script finds too while a test uses this fixture."""
    with imported_parts() as found:
        yield found
