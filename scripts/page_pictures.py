"""Takes the pictures of docs/ui.md: each tab of the page on the demo model, with the sample notes and the docs.

    pip install -e '.[dev]' && python scripts/page_pictures.py

Needs Chromium, and that there is no folder /tmp/notes yet: the paths in the pictures are those of copies there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "ui"
NOTES = Path("/tmp/notes")
PROGRAM = (sys.executable, "-m", "q3e_local")
SIZE = {"width": 1200, "height": 760}
QUESTION = "Why did customers see errors at the checkout?"

LEFT = "What is the capital of China?\nExplain gravity\n引力是什么？"
RIGHT = "The capital of China is Beijing.\nGravity attracts two bodies towards each other.\n会议在星期一。"

# By the name of the picture: the tab, its parameters, what is there once it is ready, and the options of the window.
PICTURES: dict[str, tuple[str, dict[str, str], str, dict[str, Any]]] = {
    "search": ("search", {"q": QUESTION, "k": "5"}, "article", {}),
    "compare": ("compare", {"left": LEFT, "right": RIGHT}, "table.matrix", {}),
    "look": ("look", {"text": "Tokens, not letters: naïve 预算复盘", "kind": "query"}, ".token", {}),
    "map": ("map", {}, ".groups button", {}),
    "models": ("models", {"model": "demo"}, ".lines pre", {}),
    "search-zh": (
        "search",
        {"q": "云服务器为什么超支？", "k": "5"},
        "article",
        {"color_scheme": "dark", "locale": "zh-CN"},
    ),
}


def main() -> int:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or NOTES.exists():
        print(f"needs Chromium, and no {NOTES}")
        return 1
    shutil.copytree(ROOT / "examples" / "notes", NOTES / "meetings")
    (NOTES / "manual").mkdir()
    for page in (ROOT / "docs").glob("*.md"):
        if not page.name.endswith(".zh-CN.md"):  # they say what the English pages say
            shutil.copy(page, NOTES / "manual")
    TARGET.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
            environment = {**os.environ, "Q3E_HOME": home}
            subprocess.run([*PROGRAM, "index", str(NOTES), "-m", "demo", "-q"], env=environment, check=True)
            command = [*PROGRAM, "ui", "--no-open", "--port", "0"]
            with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
                assert server.stdout is not None
                address = server.stdout.readline().strip()
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                for name in PICTURES:
                    take(browser, address, name)
                browser.close()
                server.send_signal(signal.SIGINT)
    finally:
        shutil.rmtree(NOTES)
    return 0


def take(browser: Browser, address: str, name: str) -> None:
    tab, parameters, shown, options = PICTURES[name]
    page = browser.new_page(viewport=SIZE, **{"locale": "en-US", **options})
    page.goto(f"{address}#/{tab}?{urlencode(parameters)}")
    page.wait_for_selector(shown)
    if name == "search":
        page.get_by_role("button", name="Why").first.click()
    if name == "models":
        page.get_by_role("button", name="Load demo", exact=True).click()
        page.get_by_role("button", name="Unload demo").wait_for()
    page.wait_for_timeout(1_500)
    page.screenshot(path=TARGET / f"{name}.png")
    page.close()


if __name__ == "__main__":
    sys.exit(main())
