"""`q3e-local doctor`: a sound machine passes, and each problem comes with what to do about it."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from command import run
from findings import advice_of, findings, problem
from world import flip_bit, rows

from q3e_local import machine
from q3e_local.models.catalog import models_folder

pytestmark = pytest.mark.usefixtures("quick")


def test_aliases_are_looked_at(tmp_path):
    config = tmp_path / "q3e" / "config" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[aliases]\nmine = {model = "demo", dim = 64}\nlater = {model = "qwen3-embedding:8b"}')
    code, found = findings()
    texts = [finding["text"] for finding in found if finding["what"] == "names"]
    assert code == 0
    assert "aliases.later.model is not on this machine yet; get it with: q3e-local pull" in texts[0]
    assert texts[1] == f"mine, later: of your own, in {config}"
    for content, said in (
        ('[aliases]\nmine = {model = "nope"}', "aliases.mine.model: the alias mine stands for nope"),
        ("[aliases", "is no TOML"),
    ):
        config.write_text(content)
        assert said in problem()["text"]


def test_what_people_read_has_a_line_each_and_the_advice_under_it():
    result = run("doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert all(line.startswith(("ok    ", " " * 17 + "-> ")) for line in lines)
    assert lines[lines.index("ok    model      only what comes with q3e-local is here") + 1].endswith(
        "-> q3e-local pull qwen3-embedding:4b"
    )


def test_it_changes_nothing(tmp_path):
    findings()
    assert not (tmp_path / "q3e").exists()


CLOSE = "close other programs before you use qwen3-embedding:4b, which needs about 2.8 GB"
SMALLEST = "qwen3-embedding:0.6b"


@pytest.mark.parametrize(
    ("total_gb", "usable_gb", "available_gb", "code", "text", "advice"),
    [
        (16, 15, 0.5, 1, "", {"memory": CLOSE, "model": "q3e-local pull qwen3-embedding:4b"}),
        (16, 15, 2, 0, "", {"memory": CLOSE, "model": "q3e-local pull qwen3-embedding:4b"}),
        (3, 2, 1.5, 0, f": enough for {SMALLEST}, which needs about 0.6 GB", {"model": f"q3e-local pull {SMALLEST}"}),
        (16, 0.3, 8, 1, "", {"memory": f"only the demo model can run here: {SMALLEST} needs about 0.6 GB"}),
    ],
)
def test_a_model_is_advised_that_the_memory_has_room_for(
    total_gb, usable_gb, available_gb, code, text, advice,
    monkeypatch,
):  # fmt: skip
    for name, gb in {"total": total_gb, "usable": usable_gb, "available": available_gb}.items():
        monkeypatch.setattr(machine, f"{name}_memory", lambda gb=gb: int(gb * 1e9))
    got, found = findings()
    of_models = {what: line for what, line in advice_of(found).items() if what != "kernels"}
    assert (got, of_models) == (code, advice)
    texts = {finding["what"]: finding["text"] for finding in found}
    assert texts["memory"] == f"{total_gb:.1f} GB, {available_gb:.1f} GB available{text}"
    assert ("\nWARN  memory " in run("doctor").stdout) == bool(code)


@pytest.mark.parametrize(
    ("name", "variable"), [("data", "Q3E_HOME"), ("state", "Q3E_HOME"), ("hub cache", "HF_HOME")]
)
def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path, name, variable):
    folder = tmp_path / "q3e" / name
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file where the folder should be")
    if name == "hub cache":
        monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    finding = problem()
    assert (finding["what"], finding["text"]) == (name, f"{folder} cannot be written")
    assert finding["advice"].endswith(variable)


def test_a_disk_without_room_is_told_for_the_folders_that_models_go_to(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=int(1e9)))
    code, found = findings()
    assert code == 1
    wrong = {finding["what"]: finding["advice"] for finding in found if not finding["ok"]}
    assert list(wrong) == ["data", "hub cache"]
    assert wrong["data"] == "qwen3-embedding:4b needs 2.5 GB: make room, or choose another folder with Q3E_HOME"
    assert wrong["hub cache"].endswith("HF_HOME")


def test_a_broken_model_that_is_ours(world):
    run("pull", "tiny:1b-q8_0")
    flip_bit(Path(rows()["tiny:1b-q8_0"]["path"]).resolve(), 0)
    finding = problem()
    assert finding["text"].startswith("tiny:1b-q8_0: ")
    assert finding["advice"] == "remove it and pull it again: q3e-local rm tiny:1b-q8_0"


def test_a_broken_model_that_is_anothers(world, tmp_path):
    run("pull", "tiny:1b-q8_0")
    path = rows()["tiny:1b-q8_0"]["path"]
    shutil.rmtree(world.home / "data")
    flip_bit(Path(path).resolve(), 0)
    finding = problem()
    advice = f"delete {path}, which another program put there, and pull it: q3e-local pull tiny:1b-q8_0"
    assert finding["advice"] == advice


def test_an_imported_model_that_is_broken_or_gone(world, tmp_path):
    path = tmp_path / "mine.gguf"
    shutil.copyfile(models_folder() / "demo.gguf", path)
    run("import", path, "--name", "mine")
    flip_bit(path, 0)
    assert problem()["advice"] == f"mend {path}, or forget it: q3e-local rm mine"
    path.unlink()
    finding = problem()
    assert finding["text"] == "mine is gone"
    assert finding["advice"] == f"{path} is no longer there; import it again, or forget it: q3e-local rm mine"


def test_a_good_model_is_told_with_its_facts(world):
    run("pull", "tiny:1b-q8_0")
    code, found = findings()
    assert code == 0
    assert [finding["text"] for finding in found if finding["what"] == "model"] == [
        "demo: q8_0, dim 256, header right",
        "demo-reranker: q4_0, reranker, head cls.output.weight, F32, header right",
        "tiny:1b-q8_0: q8_0, dim 256, header right",
    ]


def test_a_damaged_card_does_not_end_the_examination(world):
    world.write_card(('license = "MIT"', ""))
    code, found = findings()
    assert code == 1
    wrong = [finding for finding in found if not finding["ok"]]
    assert [finding["what"] for finding in wrong] == ["models", "embedding"]
    assert all(f"{world.card}: license must be a text; it is missing" in finding["text"] for finding in wrong)
