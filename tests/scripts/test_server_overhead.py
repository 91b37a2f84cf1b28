"""The script that times a server beside the library runs; what it measures is for a quiet machine."""

from __future__ import annotations

import runpy

from click.testing import CliRunner
from paths import ROOT

from q3e_local.models.catalog import models_folder

BENCH = ROOT / "scripts" / "bench"


def test_the_server_is_timed_beside_the_library() -> None:
    main = runpy.run_path(str(BENCH / "server_overhead.py"))["main"]
    arguments = ["--model", str(models_folder() / "demo.gguf"), "--requests", "5", "--texts", "70", "--rounds", "1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("demo: 5 requests")
    assert lines[4].startswith("demo.gguf: 70 texts, ")
    names = ["over", "library", "overhead", "64", "library", "ratio"]
    assert [line.split()[0] for line in lines[1:4] + lines[5:]] == names
