"""What a name means: the same for the command line, the library and a server."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from command import expected, failed, records, run, write
from world import F16

import q3e_local
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import ModelNotHereError, OptionError, UnknownModelError
from q3e_local.models import names as naming
from q3e_local.models.names import Names, served_as
from q3e_local.models.own_names import Alias
from q3e_local.server.served_names import ServedNames, to_try
from q3e_local.server.settings import ServerSettings

CONFIG = """
[aliases]
My-Legal = {model = "demo", instruction = "Find the clause", dim = 64}
small = {model = "demo", dim = 48}
asks = {model = "demo-query"}
alike = {model = "demo", task = "sts"}
"""


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "q3e"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def aliases(tmp_path: Path) -> Path:
    write(tmp_path, {"q3e/config/config.toml": CONFIG})
    return tmp_path / "q3e" / "config" / "config.toml"


@pytest.mark.parametrize(
    ("arguments", "same_as"),
    [
        (["-m", "demo-query"], {"kind": "query"}),
        (["-m", "DEMO-query:latest"], {"kind": "query"}),
        (["-m", "demo-query", "--as", "document"], {}),
        (["-m", "demo-query", "--task", "code", "-d", "32"], {"kind": "query", "task": "code", "dim": 32}),
        (["-m", "my-legal"], {"kind": "query", "instruction": "Find the clause", "dim": 64}),
        (["-m", "my-legal", "-d", "100"], {"kind": "query", "instruction": "Find the clause", "dim": 100}),
        (["-m", "my-legal", "--instruction", "Find it"], {"kind": "query", "instruction": "Find it", "dim": 64}),
        (["-m", "my-legal", "--as", "document"], {"dim": 64}),
        (["-m", "small"], {"dim": 48}),
        (["-m", "small-query"], {"kind": "query", "dim": 48}),
        (["-m", "asks"], {"kind": "query"}),
        (["-m", "alike"], {"kind": "query", "task": "sts"}),
        (["-m", "alike", "--as", "document"], {"task": "sts"}),
    ],
)
@pytest.mark.usefixtures("aliases")
def test_the_command_line_embeds_as_the_name_says(arguments, same_as):
    result = run("embed", *arguments, "--text", "who pays?")
    (record,) = records(result.stdout)
    wanted = expected(["who pays?"], **same_as)
    np.testing.assert_array_equal(record["embedding"], wanted.vectors[0])
    assert record["space"] == wanted.space
    assert f"model demo, dim {wanted.vectors.shape[1]}, space {wanted.space}" in result.stderr


def test_the_library_embeds_as_the_name_says(aliases):
    with q3e_local.load("demo-query") as embedder:
        assert embedder.embed(EmbedRequest(["a"])).space == expected(["a"], kind="query").space
        # A call that says itself what its texts are has the last word.
        assert embedder.embed_documents(["a"]).space == expected(["a"]).space
    with q3e_local.load("my-legal") as embedder:
        found = embedder.embed_query("a")
        assert found.space == expected(["a"], kind="query", instruction="Find the clause", dim=64).space
        assert (found.vectors.shape, embedder.embed(EmbedRequest([])).vectors.shape) == ((1, 64), (0, 64))
        assert embedder.embed_documents(["a"]).space == expected(["a"], dim=64).space
        assert embedder.embed_query("a", 32).vectors.shape == (1, 32)


def test_a_hint_for_a_task_that_leaves_texts_bare_knows_the_name(aliases):
    assert "for queries add --as query" in run("embed", "-m", "demo", "--task", "code", "--text", "a").stderr
    assert "add --as query" not in run("embed", "-m", "demo-query", "--task", "code", "--text", "a").stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("demo-query-query", "texts under 'demo-query' are queries already; leave the last -query out"),
        ("my-legal-query", "texts under 'my-legal' are queries already; leave the last -query out"),
        ("asks-query", "texts under 'asks' are queries already; leave the last -query out"),
        ("nope-query", "there is no model 'nope-query'; "),
        ("my-legel", "there is no model 'my-legel'; did you mean my-legal?"),
    ],
)
def test_a_name_that_means_nothing(aliases, name, said):
    result = run("embed", "-m", name, "--text", "a")
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


@pytest.mark.parametrize("name", ["demo-query", "my-legal", "small-query"])
@pytest.mark.usefixtures("aliases")
def test_what_measures_a_model_knows_it_by_all_its_names(name):
    for command in ("bench", "tune"):
        result = run(command, "-m", name, "--seconds", 0, "--json")
        assert result.exit_code == 0, result.stderr
        assert '"demo"' in result.stdout
    assert run("tune", "-m", name, "--reset").stderr == "demo: nothing was tuned\n"


def test_what_measures_a_model_brings_it_here_first(world):
    write(world.home, {"config/config.toml": '[aliases]\nmine = {model = "tiny:1b-f16", dim = 32}'})
    for command in ("bench", "tune"):
        result = run(command, "-m", "mine", "--seconds", 0, "--json", "--offline")
        assert (result.exit_code, world.requests()) == (1, [])
        assert "q3e-local pull tiny:1b-f16" in result.stderr
    result = run("tune", "-m", "mine", "--seconds", 0, "--json")
    assert (result.exit_code, world.requests()) == (0, [F16])
    assert "Pulling tiny:1b-f16" in result.stderr


def test_an_alias_cannot_hide_a_model(aliases):
    aliases.write_text('[aliases]\ndemo = {model = "qwen3-embedding:4b"}')
    result = run("embed", "-m", "demo", "--text", "a")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{aliases}: aliases.demo has the name of a model; give it another" in result.stderr


def test_a_broken_config_is_named_by_every_command_that_takes_a_model(aliases):
    aliases.write_text("[aliases]\nx = 3")
    for arguments in (("embed", "-m", "demo", "--text", "a"), ("show", "demo"), ("verify", "demo")):
        assert f"{aliases}: aliases.x must be a table" in failed(*arguments, code=2)
    assert naming.resolve(Path("mine.gguf")).located.name == "mine"  # a path object asks nothing of it


def test_a_config_folder_below_a_file_has_no_names(tmp_path, monkeypatch):
    write(tmp_path, {"file": ""})
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "file"))
    assert naming.resolve("demo").located.name == "demo"


def test_a_dim_of_a_name_that_the_model_has_not(aliases):
    aliases.write_text('[aliases]\nx = {model = "demo", dim = 512}')
    stderr = failed("embed", "-m", "x", "--text", "a", code=2)
    assert "Error: the name's dim must be between 32 and 256 for demo, got 512" in stderr


def test_show_says_what_is_done_to_texts(aliases):
    assert "under this name  " not in run("show", "demo").stdout
    shown = " ".join(run("show", "my-legal").stdout.split())
    assert "under this name queries, instruction Find the clause, dim 64" in shown
    assert run("verify", "demo-query").exit_code == 0


def test_a_query_name_is_pulled_as_its_model(world):
    assert run("pull", "tiny:1b-q8_0-query").exit_code == 0
    assert world.requests()
    assert run("embed", "-m", "tiny:1b-q8_0-query", "--text", "a").exit_code == 0


def test_embedding_under_a_query_name_pulls_the_model(world):
    write(world.home, {"config/config.toml": '[aliases]\nmine = {model = "tiny:1b-f16", dim = 32}'})
    result = run("embed", "-m", "mine-query", "--text", "a")
    assert result.exit_code == 0
    assert "Pulling tiny:1b-f16: " in result.stderr
    (record,) = records(result.stdout)
    assert len(record["embedding"]) == 32


def test_a_path_is_a_name_here_and_none_on_a_server(tmp_path, tiny_gguf):
    (tmp_path / "mine.gguf").write_bytes(tiny_gguf("f16").read_bytes())
    assert naming.resolve("mine.gguf").located.path == Path("mine.gguf")
    assert naming.resolve("./mine.gguf").located.path == Path("mine.gguf")
    for name in ("mine.gguf", "./mine.gguf", "mine"):
        with pytest.raises(UnknownModelError):
            ServedNames(ServerSettings()).resolve(name)
    names = ServedNames(ServerSettings(models=("mine.gguf",)))
    for name in ("mine", "MINE", "mine-query", "mine:latest"):
        assert names.resolve(name).located.path == Path("mine.gguf")
    assert names.resolve("mine-query").defaults.kind == "query"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("demo", "demo"),
        ("demo-query", "demo-query"),
        ("/x/mine.gguf", "mine"),
        ("./Qwen3-Embedding-4B-Q4_K_M.GGUF", "Qwen3-Embedding-4B-Q4_K_M"),
        ("/x/my model (1).gguf", "my-model-1"),
        ("/x/.gguf", "gguf"),
        ("~/模型.gguf", "model"),
    ],
)
def test_the_name_a_file_is_served_under(file, name):
    assert served_as(file) == name


def test_two_files_of_one_name_cannot_both_be_served():
    with pytest.raises(OptionError, match=r"a/x\.gguf and b/x\.gguf would both be served as 'x'; rename one"):
        ServedNames(ServerSettings(models=("a/x.gguf", "b/x.gguf")))


@pytest.mark.parametrize(
    ("alias", "said"),
    [
        (Alias("nope"), "aliases.mine.model: the alias mine stands for nope, and there is no such model"),
        (Alias("other"), "aliases.mine.model: the alias mine stands for other, which is an alias too; name a model"),
        (Alias("demo-query-query"), "aliases.mine.model: texts under 'demo-query' are queries already"),
        (Alias("demo", dim=257), "aliases.mine.dim must be 256 or less, which demo has, got 257"),
        (Alias("qwen3-embedding:4b", dim=2561), "aliases.mine.dim must be 2560 or less, which qwen3"),
    ],
)
def test_an_alias_that_can_never_work(alias, said):
    with pytest.raises(OptionError) as caught:
        Names({"mine": alias, "other": Alias("demo")}).check_aliases()
    assert said in str(caught.value)
    with pytest.raises(OptionError, match=r"aliases\.demo has the name of a model; give it another"):
        Names({"demo": Alias("qwen3-embedding:4b")}).check_aliases()


def test_an_alias_of_a_model_that_is_only_not_here_yet():
    names = Names({"mine": Alias("qwen3-embedding:4b-query", dim=2560), "fine": Alias("demo", dim=256)})
    (doubt,) = names.check_aliases()
    assert "aliases.mine.model is not on this machine yet; get it with: q3e-local pull qwen3-embedding:4b" in doubt
    with pytest.raises(ModelNotHereError):
        names.resolve("mine")


def test_the_example_of_a_server_is_a_model_that_the_user_named_before_one_that_lies_around(world, tmp_path):
    assert to_try(ServerSettings()) == "demo"
    assert to_try(ServerSettings(), "reranker") == "demo-reranker"
    run("pull", "tiny:1b-q8_0")
    shutil.rmtree(world.home / "data")  # who put it into the hub cache is forgotten
    assert to_try(ServerSettings()) == "tiny:1b-q8_0"
    run("import", world.f16, "--name", "zebra")
    assert to_try(ServerSettings()) == "zebra"
    assert to_try(ServerSettings(), "reranker") == "demo-reranker"
    assert to_try(ServerSettings(models=("demo",))) == "demo"


def test_an_alias_that_is_no_table_is_answered_with_its_own_model(aliases):
    aliases.write_text('[aliases]\nlegal = "demo"\n')
    said = 'aliases.legal must be a table such as {model = "demo", dim = 256}'
    assert said in run("embed", "-m", "legal", "--text", "a").stderr
