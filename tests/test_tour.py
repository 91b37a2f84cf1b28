"""The notebook runs from end to end and shows what is stored in it, but for the last digits."""

from __future__ import annotations

import os
import re
import warnings

import nbformat
import pytest
from paths import ROOT

TOUR = ROOT / "examples" / "tour.ipynb"


def outputs(notebook) -> list[list[tuple[str, str]]]:
    """What each cell shows, with every decimal number as #."""
    found = []
    for cell in notebook.cells:
        parts = []
        for output in cell.get("outputs", []):
            for kind, text in [("text", output["text"])] if "text" in output else sorted(output["data"].items()):
                parts.append((kind, re.sub(r"-?\d+\.\d+", "#", text)))
        found.append(parts)
    return found


def test_the_tour_shows_what_is_stored(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Jupyter's own
        nbclient = pytest.importorskip("nbclient")
        pytest.importorskip("ipykernel")
        stored = nbformat.read(TOUR, as_version=4)
        nbformat.validate(stored)
        root = str(TOUR.parent.parent)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])))
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        run = nbformat.read(TOUR, as_version=4)
        # Its folder is the test's, and whatever Jupyter keeps goes there too.
        nbclient.NotebookClient(
            run, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        ).execute()
    assert outputs(run) == outputs(stored)
    assert any(parts for parts in outputs(stored))
