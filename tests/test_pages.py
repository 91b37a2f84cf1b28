"""Pages for contributors name what there is: files, folders, the order of imports, the checks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest
import yaml
from paths import ROOT, TESTS
from processes import FILES, QUICK, SLOW
from test_imports import ROOMS

PACKAGE = ROOT / "q3e_local"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TREE = ARCHITECTURE[ARCHITECTURE.index("```\nq3e_local/") :].split("```")[1].splitlines()[2:]


def of_tree() -> Iterator[str]:
    """The paths of the tree below q3e_local/, each name joined to the folders that it stands under."""
    above: list[str] = []
    for line in TREE:
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        above[depth:] = [line.split()[0]]
        yield "".join(above)


def in_text(page: str) -> set[str]:
    """What stands in backticks and is a path: it ends in a slash or a suffix, or has a slash inside."""
    named = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))
    return {each for each in named if re.fullmatch(r"[\w.-]+(/[\w.-]+)*(/|\.(py|md|toml|txt))", each)}


def exists(name: str) -> bool:
    return (PACKAGE / name).exists() or (ROOT / name).exists()


def test_the_tree_is_that_of_the_package():
    for name in of_tree():
        path = PACKAGE / name
        assert path.is_dir() if name.endswith("/") else path.is_file(), name


def test_every_wing_stands_in_the_tree():
    entries = {path.name + "/" * path.is_dir() for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    wings = {name for name in entries if name.endswith("/")}
    shown = {name for name in of_tree() if name.count("/") <= 1 and not PurePosixPath(name).parts[1:]}
    assert wings <= shown
    assert shown <= entries


def test_what_the_architecture_names_is_there():
    assert [name for name in in_text(ARCHITECTURE) if not exists(name)] == []


def test_the_order_of_imports_is_the_one_that_is_tested():
    rows = [set(re.findall(r"`(\w+)/`", line)) for line in ARCHITECTURE.splitlines() if re.match(r"\| \d+ ", line)]
    rooms = [{name for name in names if (PACKAGE / name).is_dir()} for names in ROOMS]
    assert [row for row in rows if row] == [room for room in rooms if room]


def test_twelve_files_are_to_be_read_first():
    part = ARCHITECTURE.partition("## What to read first")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\d+\. `[\w/]+\.py`", part, re.MULTILINE)) == 12


def test_what_contributing_names_is_there():
    for name in in_text(CONTRIBUTING):
        # A module without its folder is one of the folder that the step names.
        assert exists(name) or ("/" not in name and any(PACKAGE.rglob(name))), name


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("q3e_local/reading/kinds.py", ["SUFFIXES", "_DOCUMENTS", "_LEFT_OUT"]),
        ("q3e_local/reading/__init__.py", ["_READERS", "_TEXT_READERS"]),
        ("q3e_local/server/dialects/routes.py", ["Routes", "embedded", "json_response", "result_headers"]),
        ("q3e_local/server/dialects/tei.py", ["routes", "answer_failure", "with_body"]),
        ("q3e_local/server/app.py", ["create_app", "_wording", "_no_route"]),
        ("q3e_local/cli/__init__.py", ["_GROUPS"]),
        ("q3e_local/jobs/rows.py", ["unit_rows", "check_texts"]),
        ("q3e_local/cli/jobs/duplicates.py", ["collect", "write_report", "report_options"]),
        ("q3e_local/cli/jobs/options.py", ["inputs_argument", "job_options"]),
        ("q3e_local/cli/writing/report.py", ["report_options", "target"]),
        ("q3e_local/cli/computing/engine_options.py", ["ModelCommand", "engine_options"]),
        ("tests/test_imports.py", ["FOREIGN"]),
        ("tests/made_files.py", ["FILES"]),
        ("tests/reading/test_reading.py", ["EXPECTED"]),
        ("tests/reading/test_extras.py", ["WITHOUT"]),
        ("tests/serving.py", ["http", "fake"]),
        ("tests/server/dialects/test_all.py", ["ROUTES"]),
    ],
)
def test_the_names_in_the_steps_are_in_those_files(file, names):
    code = (ROOT / file).read_text(encoding="utf-8")
    for name in names:
        assert re.search(rf"`{name}\b", CONTRIBUTING), name
        assert re.search(rf"\b{name}\b", code), name


def test_before_a_commit_the_checks_of_make_run_from_the_environment():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repo["repo"] == "local"  # nothing is downloaded
    assert {hook["language"] for hook in repo["hooks"]} == {"system"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    check = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert check is not None
    by_make = [re.findall(r"\$\(BIN\)/(\w+(?: [a-z]+)?)", line)[0].strip() for line in check[1].splitlines()]
    by_hook = [re.match(r"\.venv/bin/(\w+(?: [a-z]+)?)", hook["entry"])[1] for hook in repo["hooks"]]
    assert by_hook == by_make == ["ruff format", "ruff check", "mypy"]


@pytest.mark.parametrize("name", ["bug.yml", "idea.yml"])
def test_forms_ask_for_what_doctor_prints(name):
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / name).read_text(encoding="utf-8"))
    assert form["name"]
    assert form["description"]
    fields = {field["id"]: field for field in form["body"]}
    assert len(fields) == len(form["body"])
    assert "q3e-local doctor" in fields["doctor"]["attributes"]["label"]
    is_needed = fields["doctor"].get("validations", {}).get("required", False)
    assert is_needed is (name == "bug.yml")


@pytest.mark.parametrize("name", sorted(FILES | SLOW))
def test_what_make_quick_leaves_out_is_there(name):
    file, _, test = name.partition("::")
    assert f"def {test}" in (TESTS / file).read_text(encoding="utf-8")


def test_make_quick_says_what_the_tests_wait_for():
    """With other words, no test would be held to start no process."""
    assert f'-m "{QUICK}"' in (ROOT / "Makefile").read_text(encoding="utf-8")
