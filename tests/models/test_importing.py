"""`q3e-local import FILE`: a file stays where it lies, under a name that nothing else has."""

from __future__ import annotations

import shutil

import pytest
from command import failed, run
from world import origins, rows


def test_an_imported_model_is_among_those_that_a_mistyped_name_is_like(world, mine):
    run("import", mine, "--name", "legal/contracts:v2")
    assert "did you mean legal/contracts:v2?" in run("show", "legal/contract:v2").stderr


def test_import_takes_a_file_where_it_lies(world, mine, monkeypatch):
    monkeypatch.chdir(mine.parent)
    result = run("import", "mine.gguf")
    assert result.exit_code == 0
    assert (
        result.stderr == "Use it with -m tiny-qwen3-embedding; check it with: q3e-local verify tiny-qwen3-embedding\n"
    )
    assert result.stdout == f"tiny-qwen3-embedding is at {mine}\n"
    assert world.models() == []
    monkeypatch.chdir(world.home)
    assert run("embed", "-m", "tiny-qwen3-embedding", "--text", "one").exit_code == 0


def test_import_knows_a_cards_file_by_its_checksum(world, tmp_path):
    path = tmp_path / "renamed"
    shutil.copyfile(world.q8_0, path)
    result = run("import", path)
    assert result.stdout == f"tiny:1b-q8_0 is at {path}\n"
    assert run("pull", "tiny:1b-q8_0").stdout == f"tiny:1b-q8_0 is at {path}\n"
    assert world.hub.requests == []


def test_import_of_the_file_we_have_already_keeps_ours_in_sight(world):
    run("pull", "tiny:1b-q8_0")
    path = rows()["tiny:1b-q8_0"]["path"]
    assert run("import", world.q8_0).stdout == f"tiny:1b-q8_0 is at {path}\n"
    assert origins() == {"tiny:1b-q8_0": "pulled"}


def test_import_gives_every_file_another_name(world, tiny_gguf):
    paths = [tiny_gguf("q8_0", context_length=n) for n in (512, 768, 1024)]
    said = [run("import", path).stdout for path in [*paths, paths[0]]]
    names = ["tiny-qwen3-embedding", "tiny-qwen3-embedding-q8_0", "tiny-qwen3-embedding-q8_0-2"]
    assert said[:3] == [f"{name} is at {path}\n" for name, path in zip(names, paths, strict=True)]
    assert said[3] == said[0]
    assert sorted(rows()) == names


def test_import_of_a_file_whose_title_is_a_cards_alias_finds_another_name(world, mine):
    world.write_card(('"Tiny-1B"', '"Tiny-Qwen3-Embedding"'))
    assert run("import", mine).stdout == f"tiny-qwen3-embedding-q8_0-2 is at {mine}\n"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Big Letters", "'Big Letters' is no model name"),
        ("a:b:c", "is no model name"),
        ("../x", "is no model name"),
        ("", "is no model name"),
        ("x" * 81, "is no model name"),
        ("tiny:1b-f16", "the name 'tiny:1b-f16' is that of tiny:1b-f16, the file is another"),
        ("qwen3-embedding-4b", "is that of qwen3-embedding:4b, the file is another"),
        ("tiny:1b", "the name 'tiny:1b' is that of tiny:1b, the file is another"),
        ("demo", "is that of demo"),
        ("other", "other is there already; give another with --name, or first: q3e-local rm other"),
    ],
)
def test_import_refuses_a_name_it_cannot_have(world, mine, tiny_gguf, name, says):
    run("import", tiny_gguf("q8_0", context_length=512), "--name", "other")
    stderr = failed("import", mine, "--name", name, code=2)
    assert f"Error: {says}" in stderr or says in stderr
    assert sorted(rows()) == ["other"]


def test_import_takes_a_made_models_name_for_a_file_of_its_sizes(world, tiny_gguf):
    path = tiny_gguf("q4_k_m")
    assert run("import", path, "--name", "tiny-1b").stdout == f"tiny:1b is at {path}\n"
    assert run("show", "tiny:1b").exit_code == 0


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        ({"arch": "qwen2"}, "only qwen3"),
        ({"pooling": 4}, "has neither a head nor"),
        ({"pooling": None}, "states no pooling"),
    ],
)
def test_import_refuses_another_kind_of_model(world, tiny_gguf, variant, says):
    assert says in failed("import", tiny_gguf("f32", **variant))
    assert origins() == {}


@pytest.mark.parametrize(
    ("content", "says"), [(None, "there is no file"), (b"", "empty.gguf"), (b"GGUF", "empty.gguf")]
)
def test_import_refuses_what_is_no_model(world, tmp_path, content, says):
    path = tmp_path / "empty.gguf"
    if content is not None:
        path.write_bytes(content)
    stderr = failed("import", path)
    assert stderr.startswith("Error: ")
    assert says in stderr
