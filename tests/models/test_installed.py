"""`q3e-local list`, `show` and `rm`, and how `-m` finds a model: nothing of others' is ever touched."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import demo, failed, records, run
from gpus import device
from world import BUNDLED, Q8_0, digest, flip_bit, origins, rows

from q3e_local import machine
from q3e_local.gguf.model_file import inspect
from q3e_local.models.catalog import cards, models_folder, shipped


@pytest.mark.parametrize(
    "change",
    [
        ('name = "tiny:1b"', 'name = "qwen3-embedding:4b"'),
        ('name = "tiny:1b"', 'name = "qwen3-embedding:4b-q8_0"'),
        ('"Tiny-1B"', '"qwen3-Embedding-8B-F16"'),
        ('"Tiny-1B"', '"demo"'),
    ],
)
def test_a_card_of_the_users_takes_no_other_models_name(world, change):
    world.write_card(change)
    stderr = failed("list")
    assert f"Error: {world.card} and {models_folder()}" in stderr
    assert "both have the name" in stderr


def test_a_malformed_card_of_the_users_is_named_by_every_command(world):
    world.write_card(("n_layer = 3", 'n_layer = "three"'))
    for arguments in (["list"], ["pull", "demo"], ["show", "demo"], ["rm", "demo"]):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"Error: {world.card}: sizes.n_layer must be a whole number above 0; got 'three'\n"


# list


def test_list_has_what_is_here_and_says_what_could_be(world, mine):
    run("pull", "tiny:1b-q8_0")
    run("import", mine, "--name", "mine")
    result = run("list")
    assert result.exit_code == 0
    head, *lines = result.stdout.splitlines()
    assert head.split() == ["name", "kind", "size", "origin", "path"]
    assert [line.split()[0] for line in lines] == [*BUNDLED, "mine", "tiny:1b-q8_0"]
    assert lines[-2].endswith(f"  imported  {mine}")
    assert f"  {mine.stat().st_size / 1e6:.1f} MB  " in lines[-2]
    of_others = [file for card in shipped().values() if card.name not in BUNDLED for file in card.files.values()]
    n_missing = 2 + sum(file.made_from != "checkpoint" for file in of_others)
    assert result.stderr == f"{n_missing} more can be pulled: q3e-local list --all\n"


def test_list_all_has_a_line_for_every_model_there_is(world, mine, monkeypatch):
    monkeypatch.setattr(machine, "usable_memory", lambda: int(3e9))
    run("pull", "tiny:1b-q8_0")
    run("import", mine, "--name", "mine")
    result = run("list", "--all")
    assert result.exit_code == 0
    head, *lines = result.stdout.splitlines()
    assert head.split() == ["name", "kind", "size", "memory", "on", "this", "machine"]
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}
    assert set(rows) == {*(card.tag(each) for card in cards().values() for each in card.files), "mine"}
    assert rows["qwen3-embedding:4b"] == "embedder 2.50 GB 2.82 GB can be pulled"
    assert rows["qwen3-embedding:8b"] == "embedder 4.68 GB 5.07 GB can be pulled; too large for this memory"
    assert rows["qwen3-reranker:0.6b"].startswith("reranker 639.2 MB ")
    assert rows["qwen3-reranker:0.6b"].endswith("can be pulled")
    assert rows["qwen3-reranker:4b"].endswith("can be converted")
    assert all(rows[name].endswith(" bundled") for name in BUNDLED)
    assert rows["tiny:1b-q8_0"].endswith(" pulled")
    needed = json.loads(run("show", "mine", "--json").stdout)["memory_bytes"]["512"]
    assert rows["mine"] == f"embedder {mine.stat().st_size / 1e6:.1f} MB {needed / 1e6:.1f} MB imported"
    found = {row["name"]: row for row in json.loads(run("list", "--all", "--json").stdout)}
    assert list(found) == list(rows)
    memory = found["qwen3-embedding:4b"].pop("memory_bytes")
    assert 2.7e9 < memory < 2.9e9
    assert found["qwen3-embedding:4b"] == {
        "name": "qwen3-embedding:4b", "kind": "embedder", "size_bytes": 2_496_703_776, "origin": None, "path": None,
        "fits": True,
        "description": "Qwen3-Embedding-4B: dim 32 to 2560, texts up to 32K tokens, over 100 languages",
    }  # fmt: skip
    assert (found["mine"]["origin"], found["mine"]["memory_bytes"]) == ("imported", needed)
    assert found["mine"]["fits"]


def test_list_all_and_show_count_the_same_memory_for_what_is_here(world):
    """The list went by the card also where the file was here, and a card does not state all widths."""
    run("pull", "tiny:1b-q8_0")
    listed = {row["name"]: row["memory_bytes"] for row in json.loads(run("list", "--all", "--json").stdout)}
    for name in (*BUNDLED, "tiny:1b-q8_0"):
        assert listed[name] == json.loads(run("show", name, "--json").stdout)["memory_bytes"]["512"]


def test_a_file_that_cannot_be_read_is_listed_without_memory(world, mine):
    run("import", mine, "--name", "mine")
    flip_bit(mine, 0)
    (row,) = [row for row in json.loads(run("list", "--all", "--json").stdout) if row["name"] == "mine"]
    assert (row["memory_bytes"], row["fits"]) == (None, None)


def test_list_json_is_the_same_for_programs(world, mine):
    run("import", mine, "--name", "mine")
    result = run("list", "--json")
    expected = {"name": "mine", "kind": "embedder", "size_bytes": mine.stat().st_size, "origin": "imported"}
    *bundled, imported = json.loads(result.stdout)
    assert imported == expected | {"path": str(mine)}
    assert [(row["name"], row["origin"]) for row in bundled] == [(name, "bundled") for name in BUNDLED]
    assert [row["kind"] for row in bundled] == ["embedder", "reranker"]
    assert result.stderr == ""


@pytest.mark.parametrize("what", ["is no longer there", "is not the file it was"])
def test_a_file_that_is_gone_is_no_model_and_is_told(world, mine, what):
    run("import", mine, "--name", "mine")
    if what == "is no longer there":
        mine.unlink()
    else:
        mine.write_bytes(b"another")
    assert origins() == {}
    for arguments in (["list"], ["show", "mine"], ["embed", "-m", "mine", "--text", "one"], ["verify", "mine"]):
        result = run(*arguments)
        assert result.exit_code == (0 if arguments == ["list"] else 1)
        assert f"mine is gone: {mine} {what}; import it again, or forget it: q3e-local rm mine\n" in result.stderr
    assert run("rm", "mine", "-y").exit_code == 0
    assert "mine" not in run("list").stderr


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff\xfe", b'{"name": "mine", "path": "x", "other": 1}'])
def test_a_damaged_record_is_named(world, mine, content):
    run("import", mine, "--name", "mine")
    (path,) = (world.home / "data" / "records").iterdir()
    path.write_bytes(content)
    for arguments in (["list"], ["show", "mine"], ["rm", "mine"], ["pull", "demo"]):
        result = run(*arguments)
        said = f"Error: the record {path} is damaged; delete it and import or pull the model again\n"
        needed = arguments != ["pull", "demo"]
        assert (result.exit_code, result.stderr) == ((1, said) if needed else (0, ""))


# show


def facts_of(stdout: str) -> dict[str, str]:
    return {name: value.strip() for name, value in (line.split("  ", 1) for line in stdout.splitlines())}


def test_show_says_what_the_header_says_what_was_checked_and_the_memory(world):
    run("pull", "tiny:1b-q8_0")
    result = run("show", "Tiny-1B:Q8_0")
    assert (result.exit_code, result.stderr) == (0, "")
    facts = facts_of(result.stdout)
    info = inspect(world.q8_0)
    path = rows()["tiny:1b-q8_0"]["path"]
    memory = {name: facts.pop(name) for name in list(facts) if name.startswith("memory")}
    assert facts == {
        "name": "tiny:1b-q8_0",
        "kind": "embedder",
        "title": "Tiny Qwen3 Embedding",
        "path": path,
        "size": f"{world.q8_0.stat().st_size / 1e6:.1f} MB",
        "quantization": "q8_0",
        "parameters": "2,000,000",
        "license": "MIT",
        "dimension": "32 to 256",
        "layers": "3",
        "vocabulary": "1,021 tokens",
        "context": "2,048 tokens",
        "pooling": f"last token, {info.eos_id} <|endoftext|>",
        "query prompt": r"Instruct: {instruction}\nQuery:{text}",
        "instruction": "Find it",
        "fingerprint": f"{info.digest}, of the header and the beginning of each tensor",
        "checked": f"header, SHA-256 {digest(world.q8_0)} of the whole file",
    }
    assert list(memory) == ["memory for 512 tokens", "memory for 2,048 tokens"]
    assert all(value.startswith("about ") and value.endswith(" MB") for value in memory.values())


def test_show_says_where_layers_would_go_now_where_there_is_a_gpu(world, monkeypatch):
    run("pull", "tiny:1b-q8_0")
    assert "computes now" not in run("show", "tiny:1b-q8_0").stdout
    monkeypatch.setattr("q3e_local.llama.forecast.devices", lambda: [device()])
    (line,) = [line for line in run("show", "tiny:1b-q8_0").stdout.splitlines() if line.startswith("computes now")]
    assert "3 of 3 layers on NVIDIA GeForce RTX 3060, " in line
    placement = json.loads(run("show", "tiny:1b-q8_0", "--json").stdout)["placement"]
    assert (placement["on_gpu"], [each["name"] for each in placement["devices"]]) == (3, ["CUDA0"])


def test_show_json_counts_in_bytes(world):
    run("pull", "tiny:1b-q8_0")
    facts = json.loads(run("show", "tiny:1b-q8_0", "--json").stdout)
    assert facts["size_bytes"] == world.q8_0.stat().st_size
    assert (facts["n_embd"], facts["n_layer"], facts["n_vocab"], facts["n_ctx"]) == (256, 3, 1021, 2048)
    assert (facts["pooling"], facts["query_prompt"]) == ("last", "Instruct: {instruction}\nQuery:{text}")
    small, large = (facts["memory_bytes"][n] for n in ("512", "2048"))
    kv_bytes = 3 * 2 * 64 * 2 * 2  # layers, KV heads, their size, K and V, f16
    assert large - small >= (2048 - 512) * kv_bytes
    assert small > facts["size_bytes"] + 512 * kv_bytes


def test_show_of_a_path_borrows_nothing_from_a_card_of_that_name(tmp_path):
    path = tmp_path / "qwen3-embedding-4b.gguf"
    shutil.copyfile(models_folder() / "demo.gguf", path)
    facts = json.loads(run("show", path, "--json").stdout)
    assert (facts["parameters"], facts["license"], facts["checked"]) == (None, None, "header")
    assert "parameters" not in run("show", path).stdout


def test_show_of_what_is_not_here_has_its_facts_and_says_how_to_get_it(world):
    result = run("show", "tiny:1b-q8_0")
    assert result.exit_code == 0
    assert result.stderr.startswith(
        "tiny:1b-q8_0 (0.0 GB) is not on this machine. Get it with: q3e-local pull tiny:1b-q8_0"
    )
    before = facts_of(result.stdout)
    assert (before["on this machine"], before["size"]) == ("no", f"{world.q8_0.stat().st_size / 1e6:.1f} MB")
    run("pull", "tiny:1b-q8_0")
    after = facts_of(run("show", "tiny:1b-q8_0").stdout)
    same = ("name", "kind", "quantization", "parameters", "license", "dimension", "layers", "vocabulary", "context")
    assert [before[each] for each in (*same, "query prompt", "instruction")] == [
        after[each] for each in (*same, "query prompt", "instruction")
    ]
    assert [each for each in before if each.startswith("memory")] == [
        each for each in after if each.startswith("memory")
    ]


def test_show_of_what_is_made_here_says_of_which_download(world):
    result = run("show", "qwen3-embedding:0.6b-query")
    facts = facts_of(result.stdout)
    assert facts["under this name"] == "queries"
    assert facts["made here from"] == "Qwen3-Embedding-0.6B-f16.gguf, 1.20 GB"
    assert "q3e-local pull qwen3-embedding:0.6b\n" in result.stderr
    as_json = json.loads(run("show", "qwen3-embedding:0.6b", "--json").stdout)
    assert (as_json["path"], as_json["fits"]) == (None, True)
    assert 1.1e9 < as_json["download_bytes"] < 1.3e9
    assert 3.9e8 < as_json["size_bytes"] < 4e8 < as_json["memory_bytes"]["512"] < as_json["memory_bytes"]["32768"]


def test_show_of_what_is_too_large_names_one_that_fits(world, monkeypatch):
    monkeypatch.setattr(machine, "usable_memory", lambda: int(3e9))
    facts = facts_of(run("show", "qwen3-embedding:8b").stdout)
    assert facts["too large"] == (
        "qwen3-embedding:8b needs about 5.1 GB of memory to run, and this machine has 3.0 GB for programs; "
        "one that fits: qwen3-embedding:4b"
    )


def test_show_of_a_reranker_that_cannot_be_pulled_says_how_it_is_converted(world):
    result = run("show", "qwen3-reranker:4b")
    assert result.exit_code == 0
    assert "dimension" not in facts_of(result.stdout)
    assert "  q3e-local convert Qwen/Qwen3-Reranker-4B --type q4_k_m " in result.stderr
    assert json.loads(run("show", "qwen3-reranker:4b", "--json").stdout)["download_bytes"] is None


# rm


@pytest.mark.parametrize(
    ("answer", "options", "removed"), [("y\n", [], True), ("n\n", [], False), ("\n", [], False), ("", ["-y"], True)]
)
def test_rm_asks_and_deletes_what_was_pulled(world, answer, options, removed):
    run("pull", "tiny:1b-q8_0")
    path = rows()["tiny:1b-q8_0"]["path"]
    result = run("rm", "TINY-1B-q8_0", *options, input=answer)
    assert result.exit_code == 0
    assert (f"delete {path} (" in result.stderr) == (not options)
    assert ("nothing was removed" in result.stderr) != removed
    assert result.stdout == ("removed tiny:1b-q8_0\n" if removed else "")
    assert world.models() == ([] if removed else [Q8_0])


def test_rm_without_an_answer_removes_nothing(world):
    run("pull", "tiny:1b-q8_0")
    result = run("rm", "tiny:1b-q8_0", input="")
    assert (result.exit_code, "nobody answered, so nothing was removed; give --yes" in result.stderr) == (2, True)
    assert world.models() == [Q8_0]


def test_rm_of_an_imported_model_only_forgets_it(world, mine):
    before = mine.read_bytes()
    run("import", mine, "--name", "mine")
    result = run("rm", "mine", input="y\n")
    assert result.stdout == f"forgot mine; its file stays: {mine}\n"
    assert f"forget it, and leave {mine}?" in result.stderr
    assert origins() == {}
    assert mine.read_bytes() == before


def test_rm_refuses_what_another_program_put_into_the_cache(world):
    run("pull", "tiny:1b-q8_0")
    shutil.rmtree(world.home / "data")
    assert "another program; remove it there with `hf cache rm`" in failed("rm", "tiny:1b-q8_0", "-y", code=2)
    assert world.models() == [Q8_0]


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("demo", 2, "demo is part of q3e-local and stays"),
        ("nobody:1b", 2, "there is no model 'nobody:1b'"),
        ("tiny:1b", 1, "tiny:1b is not on this machine"),
        ("../../etc/passwd", 2, "there is no model"),
    ],
)
def test_rm_of_what_cannot_go_says_why(world, name, code, says):
    result = run("rm", name, "-y")
    assert result.exit_code == code
    assert f"Error: {says}" in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="a folder that cannot be written")
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may delete anything")
def test_rm_of_a_file_that_cannot_be_deleted_is_a_sentence(world):
    run("pull", "tiny:1b-q8_0", "--source", "modelscope")
    folder = Path(rows()["tiny:1b-q8_0"]["path"]).parent
    folder.chmod(0o500)
    result = run("rm", "tiny:1b-q8_0", "-y")
    folder.chmod(0o700)
    assert result.exit_code == 1
    assert "Error: cannot delete" in result.stderr


# A path


@pytest.mark.parametrize(
    "name",
    [
        "my model.gguf",
        "模型.GGUF",
        "no suffix",
        "-dash.gguf",
        pytest.param("with:colon.gguf", marks=pytest.mark.skipif(os.name == "nt", reason="not in a file's name")),
    ],
)
def test_a_path_always_works(tmp_path, monkeypatch, name):
    folder = tmp_path / "文件 夹"
    folder.mkdir()
    shutil.copyfile(models_folder() / "demo.gguf", folder / name)
    monkeypatch.chdir(folder)
    expected = demo().embed_documents(["one text"]).vectors[0]
    for path in (name, f"./{name}", folder / name, f"../{folder.name}/{name}"):
        result = run("embed", f"--model={path}", "--text", "one text", "-q")
        assert result.exit_code == 0, result.stderr
        np.testing.assert_array_equal(records(result.stdout)[0]["embedding"], expected)


def test_a_path_that_is_not_there_is_named(tmp_path):
    stderr = failed("embed", "-m", tmp_path / "none.gguf", "--text", "one")
    assert f"there is no file {tmp_path / 'none.gguf'}" in stderr


def test_a_file_that_is_called_like_a_model_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text("notes about the demo")
    assert run("show", "demo").exit_code == 0
    assert run("show", "./demo").exit_code == 1
