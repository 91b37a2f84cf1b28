"""What tests of the page name: the function that opens it in a browser."""

from __future__ import annotations

from typing import Any, Protocol


class Open(Protocol):
    """Opens the page at a link, as the fixture `open_page` of tests/page/conftest.py says: playwright's page."""

    problems: list[str]

    def __call__(self, link: str = "", **options: Any) -> Any: ...
