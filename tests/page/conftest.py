"""A browser for the page: Debian's Chromium, driven by playwright. Without one the tests here skip.

Every page of these tests fails its test where the console has an error, a request fails, or one leaves the host.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from browsing import Open
from command import run
from paths import ROOT
from servers import served_locally

_PATIENCE_MS = 30_000  # for what takes less than a second on an idle machine
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Gone after each file: while playwright runs, its event loop is this thread's, and asyncio.run fails."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=_PATIENCE_MS)

    with sync_playwright() as playwright:
        # Who runs the tests as root, as containers do, cannot have Chromium's sandbox.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the sample notes by the demo model."""
    path = tmp_path_factory.mktemp("page") / "notes.q3e"
    assert run("index", ROOT / "examples" / "notes", "--db", path, "-m", "demo", "-q").exit_code == 0
    return path


@pytest.fixture(scope="module")
def server(notes: Path) -> Iterator[httpx.Client]:
    """A server with that index and the demo model; gone after each file, as tests of others count the processes."""
    with served_locally(indexes=(str(notes),)) as client:
        yield client


@pytest.fixture
def open_page(browser: Any, server: httpx.Client) -> Iterator[Open]:
    """`open_page("#/search?q=oak", locale="zh-CN")`: a new window of the page, watched to its end.

    Other arguments are those of a playwright context; `base_url` is the address of another server, and `prepare` gets
    the window before it asks for anything.
    """
    contexts: list[Any] = []
    problems: list[str] = []

    def opened(link: str = "", base_url: Any = None, prepare: Callable[[Any], None] = id, **options: Any) -> Any:
        address = str(base_url or server.base_url).rstrip("/")
        context = browser.new_context(**{"locale": "en-US", **options})
        contexts.append(context)
        context.set_default_timeout(_PATIENCE_MS)
        page = context.new_page()
        page.on("console", lambda line: problems.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: _check(request.url, address, problems))
        page.on(
            "response", lambda answer: problems.append(f"{answer.status} {answer.url}") if not answer.ok else None
        )
        prepare(page)
        page.goto(f"{address}/ui{link}")
        return page

    opened.problems = problems
    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def _check(url: str, address: str, problems: list[str]) -> None:
    if urlsplit(url).scheme != "data" and not url.startswith(f"{address}/"):
        problems.append(f"a request to {url}")
