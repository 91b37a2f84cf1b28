"""Rerankers among the models of this machine: import, list, show, rm, pull and bundles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rerankers
from command import failed, run
from oracle import embed
from paths import ROOT
from rewriting import rewrite
from world import rows

import q3e_local
from q3e_local.errors import ModelNotHereError, WrongModelError
from q3e_local.models import installed
from q3e_local.reranking import proof
from q3e_local.server.served_names import ServedNames
from q3e_local.server.settings import ServerSettings


@pytest.fixture
def silent(tmp_path: Path) -> Path:
    """A reranker's file that does not say what it is."""
    return rerankers.write_taught(tmp_path / "mine.gguf", "output")


@pytest.fixture
def stated(tmp_path: Path) -> Path:
    return rerankers.write_taught(tmp_path / "taught.gguf")


# import


def test_the_users_word_is_recorded_and_counts_from_then_on(world, silent):
    assert "states no pooling" in failed("import", silent, "--name", "mine")
    result = run("import", silent, "--name", "mine", "--as", "reranker")
    assert (result.exit_code, result.stdout) == (0, f"mine is at {silent}\n")
    assert result.stderr.startswith("Use it with -m mine (--reranker mine in search and eval); check it with: ")
    assert rows()["mine"]["kind"] == "reranker"
    assert installed.locate("mine").inspect().kind == "reranker"
    with q3e_local.load_reranker("mine") as reranker:
        ranked = reranker.rank(rerankers.QUESTION, rerankers.BEST_FIRST)
    assert [one.index for one in ranked] == [0, 1, 2]
    assert [one.logit for one in ranked] == pytest.approx(rerankers.TAUGHT, abs=0.01)
    with pytest.raises(WrongModelError, match="mine is a reranker"):
        q3e_local.load("mine")


def test_commands_that_read_a_header_follow_the_users_word(world, silent):
    run("import", silent, "--name", "mine", "--as", "reranker")
    for command in (
        ["show", "mine"],
        ["verify", "mine"],
        ["doctor"],
        ["cache", "clear", "--model", "mine"],
    ):
        result = run(*command)
        assert "states no pooling" not in result.output, command
    assert run("rm", "mine", "-y").exit_code == 0
    assert silent.is_file()


def test_a_file_that_says_that_it_is_a_reranker_needs_no_word(world, stated):
    assert run("import", stated).exit_code == 0
    assert rows()["taught-reranker"]["kind"] == "reranker"
    listed = run("list").stdout
    assert "  reranker  " in next(line for line in listed.splitlines() if line.startswith("taught-reranker"))


@pytest.mark.parametrize("arguments", [[], ["--as", "reranker"]])
def test_a_reranker_that_does_not_work_is_not_taken(world, stated, tmp_path, arguments):
    silly = rewrite(stated, tmp_path / "silly.gguf", tensors={"cls.output.weight": np.zeros((2, 256), np.float32)})
    assert "is no reranker that works: it gives 0.5 to a right answer" in failed("import", silly, *arguments)
    assert rows() == {}


def test_an_embedding_model_is_no_reranker_by_word_alone(world, tiny_gguf):
    # Its vocabulary has no answers.
    assert "has neither a head nor the tokens" in failed("import", tiny_gguf("f32"), "--as", "reranker")
    assert rows() == {}


def test_a_file_whose_card_says_what_it_is_is_nothing_else(world, tmp_path):
    copies = {name: tmp_path / f"{name}.gguf" for name in ("demo", "demo-reranker")}
    for name, copy in copies.items():
        shutil.copyfile(ROOT / "models" / f"{name}.gguf", copy)
    said = failed("import", copies["demo"], "--as", "reranker", "--name", "x", code=2)
    assert f"{copies['demo']} is demo, which its card calls an embedding model; leave --as out" in said
    said = failed("import", copies["demo-reranker"], "--as", "embedder", code=2)
    assert "is demo-reranker, which its card calls a reranker; leave --as out" in said
    assert rows() == {}


def test_an_embedding_model_that_no_card_knows_fails_the_proof_of_a_reranker(world, tmp_path):
    path = rewrite(ROOT / "models" / "demo.gguf", tmp_path / "mine.gguf", {"general.name": "Mine"})
    assert "mine is no reranker that works: it " in failed("import", path, "--as", "reranker", "--name", "mine")
    assert rows() == {}


def test_a_model_whose_signs_are_right_whatever_is_asked_fails_the_proof_of_a_reranker(world, tmp_path):
    """As those of an embedding model may be by chance: a demo model had 1.65 for the right answer and -0.05."""
    asked = [(query, text) for query in (proof.QUERY, proof.OTHER_QUERY) for text in (proof.RIGHT, proof.WRONG)]
    states = np.array([embed(rerankers.weights(), rerankers.CONFIG, rerankers.ids(*pair)) for pair in asked])
    yes = np.linalg.lstsq(states, np.array([3.0, -3.0, 3.0, -3.0]), rcond=None)[0].astype(np.float32)
    head = np.stack([yes, np.zeros_like(yes)])
    plain = rerankers.write(tmp_path / "plain.gguf", "cls")
    path = rewrite(plain, tmp_path / "deaf.gguf", tensors={"cls.output.weight": head})
    said = failed("import", path, "--name", "deaf")
    assert "deaf is no reranker that works: it puts the same document first for two questions" in said
    assert rows() == {}


def test_a_record_of_before_has_its_kind_from_the_file(world, stated):
    run("import", stated, "--name", "old")
    (path,) = (world.home / "data" / "records").iterdir()
    fields = json.loads(path.read_text())
    del fields["kind"]
    path.write_text(json.dumps(fields))
    assert rows()["old"]["kind"] == "reranker"


# pull, list, show, bundles


@pytest.fixture
def pulled(world, tmp_path):
    path = rerankers.write_taught(tmp_path / "ranker-q8_0.gguf", type="q8_0")
    (world.home / "config" / "models" / "ranker.toml").write_text(rerankers.card(path), encoding="utf-8")
    world.hub.add("Someone/Ranker", 40 * "a", "ranker-q8_0.gguf", path.read_bytes())
    result = run("pull", "ranker:1b")
    assert (result.exit_code, rows()["ranker:1b"]["kind"]) == (0, "reranker")
    return path


def test_show_says_what_the_answer_is_read_from(world, pulled):
    lines = dict(line.split("  ", 1) for line in run("show", "ranker:1b").stdout.splitlines())
    assert (lines["kind"].strip(), lines["head"].strip()) == ("reranker", "cls.output.weight, F32")
    assert lines["prompt"].strip() == r"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    assert not lines.keys() & {"query prompt", "pooling", "dimension"}
    facts = json.loads(run("show", "ranker:1b", "--json").stdout)
    assert facts["head"] == {"tensor": "cls.output.weight", "type": "F32", "coarse": False}
    assert facts["prompt"] == "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    assert not facts.keys() & {"query_prompt", "pooling"}


def test_show_warns_of_rows_that_are_stored_coarsely(world, tmp_path):
    source = rerankers.write(tmp_path / "f32-reranker.gguf", "none")
    run("quantize", source, tmp_path / "q4-reranker.gguf", "q4_k_m")
    headless = rewrite(
        tmp_path / "q4-reranker.gguf", tmp_path / "bare-reranker.gguf", tensors={"cls.output.weight": None}
    )
    lines = dict(line.split("  ", 1) for line in run("show", headless).stdout.splitlines())
    assert (
        lines["head"].strip()
        == "two rows of token_embd.weight, Q6_K; coarser than Q8_0, so that scores are less exact"
    )
    assert json.loads(run("show", headless, "--json").stdout)["head"]["coarse"] is True


def test_a_reranker_is_carried_to_another_machine(world, pulled, tmp_path, monkeypatch):
    assert run("pull", "ranker:1b", "--to", tmp_path / "stick").exit_code == 0
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "over there"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no cache"))
    result = run("import", tmp_path / "stick")
    assert (result.exit_code, rows()["ranker:1b"]["kind"]) == (0, "reranker")
    with q3e_local.load_reranker("ranker:1b") as reranker:
        assert reranker.rank(rerankers.QUESTION, rerankers.BEST_FIRST)[0].index == 0


def test_rm_removes_a_pulled_reranker(world, pulled):
    assert run("rm", "ranker:1b", "-y").exit_code == 0
    assert (rows(), "ranker-q8_0.gguf" in world.models()) == ({}, False)


def test_a_converted_model_takes_its_cards_name(world, pulled, tmp_path):
    """As the advice of a model without a pinned file has it."""
    card = world.home / "config" / "models" / "ranker.toml"
    made = (
        card.read_text()
        .replace(
            "[files.q8_0]",
            '[files.f16]\nmade_from = "checkpoint"\nfile = "ranker-f16.gguf"\nsize_bytes = 1\n\n[files.q8_0]',
        )
        .replace("[source]", '[source]\ncheckpoint = "a/b"\ncheckpoint_revision = "main"')
    )
    card.write_text(made.replace("ranker:1b", "other:1b"))
    run("quantize", rerankers.write_taught(tmp_path / "full-reranker.gguf"), tmp_path / "f16.gguf", "f16")
    assert run("import", tmp_path / "f16.gguf", "--name", "other:1b-f16").exit_code == 0
    assert rows()["other:1b-f16"]["origin"] == "imported"


def test_a_file_that_its_card_alone_calls_a_reranker_is_imported_and_carried_as_one(
    world, silent, tmp_path, monkeypatch
):
    (world.home / "config" / "models" / "ranker.toml").write_text(rerankers.card(silent), encoding="utf-8")
    assert run("import", silent).exit_code == 0
    assert rows()["ranker:1b"]["kind"] == "reranker"
    assert run("pull", "ranker:1b", "--to", tmp_path / "stick").exit_code == 0
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "over there"))
    result = run("import", tmp_path / "stick")
    assert (result.exit_code, rows()["ranker:1b"]["kind"]) == (0, "reranker")


def test_who_has_a_silent_reranker_is_told_how_to_say_so(world, silent, tiny_gguf, tmp_path):
    word = "q3e-local import FILE --as reranker"
    assert word in failed("import", silent)
    stated = tiny_gguf("f32")  # its title says that it is an embedding model
    untitled = rewrite(stated, tmp_path / "untitled.gguf", {"general.name": "Mine"})
    assert word in failed("rerank", "who?", "--text", "a", "-m", untitled)
    copy = tmp_path / "copy.gguf"
    shutil.copyfile(ROOT / "models" / "demo.gguf", copy)
    for known in (stated, copy):
        assert word not in failed("rerank", "who?", "--text", "a", "-m", known)


def test_a_server_does_not_send_to_a_pull_that_cannot_work(world):
    with pytest.raises(ModelNotHereError, match=r"(?s)cannot be pulled: .*q3e-local convert Qwen/Qwen3-Reranker-4B"):
        ServedNames(ServerSettings()).resolve("qwen3-reranker:4b")
