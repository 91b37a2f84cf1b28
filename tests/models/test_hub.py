"""`convert REPO`: a checkpoint comes from the hub, file by file, and is converted."""

from __future__ import annotations

import checkpoints
import hub as hubs
import pytest
from click.testing import CliRunner
from huggingface_hub import constants

from q3e_local.cli import main
from q3e_local.gguf.model_file import inspect
from q3e_local.models.download import hub as checkpoint
from q3e_local.models.download import silence
from q3e_local.models.download.hub import fetch_checkpoint

REPO = "someone/Qwen3-Embedding-Tiny"


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read when huggingface_hub is imported
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def hub(tmp_path, weights, config, tokenizer, monkeypatch, request):
    folder = checkpoints.write_checkpoint(tmp_path / "up", weights, config, tokenizer, n_shards=request.param)
    with hubs.serve() as hub:
        for path in folder.rglob("*"):
            if path.is_file():
                hub.add(REPO, "main", path.relative_to(folder).as_posix(), path.read_bytes())
        hub.commit = "0123456789abcdef0123456789abcdef01234567"
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def convert(*arguments: str) -> object:
    return CliRunner().invoke(main, ["convert", REPO, *arguments])


@pytest.mark.parametrize("hub", [1, 3], indirect=True)
def test_a_repository_is_downloaded_and_converted(hub, tmp_path):
    result = convert("-o", str(tmp_path / "tiny.gguf"), "--type", "f16")
    assert result.exit_code == 0, result.output
    assert f"Taking {REPO} at main from the hub" in result.stderr
    assert inspect(tmp_path / "tiny.gguf").quantization == "f16"
    n_contents = len(hub.contents_asked())
    assert convert("-o", str(tmp_path / "again.gguf"), "--type", "f16", "--offline").exit_code == 0
    assert len(hub.contents_asked()) == n_contents
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "tiny.gguf").read_bytes()


@pytest.mark.parametrize("hub", [3], indirect=True)
def test_the_progress_of_a_download_counts_bytes_to_their_end(hub, capfd):
    steps = []
    folder = fetch_checkpoint(REPO, "main", progress=lambda *step: steps.append(step))
    shards = sorted(folder.glob("*.safetensors"))
    last = {what: (done, total) for what, done, total in steps}
    assert list(last) == [f"downloading {path.name} ({n} of 3)" for n, path in enumerate(shards, 1)]
    assert list(last.values()) == [(path.stat().st_size,) * 2 for path in shards]
    assert all(done <= total for _, done, total in steps)
    assert len(steps) > len(shards)  # not only when a file is done
    assert capfd.readouterr().err == ""  # huggingface_hub draws no bar of its own


@pytest.mark.parametrize("hub", [1], indirect=True)
@pytest.mark.parametrize(
    ("repo", "options", "says"),
    [
        (REPO, ["--offline"], "config.json of someone/Qwen3-Embedding-Tiny is not on this machine"),
        ("no/such-repo", [], "cannot download config.json of no/such-repo at main"),
    ],
)
def test_what_cannot_be_had_is_one_error(hub, repo, options, says, tmp_path):
    result = CliRunner().invoke(main, ["convert", repo, "-o", str(tmp_path / "x.gguf"), *options])
    assert result.exit_code == 1
    assert says in result.stderr
    assert not list(tmp_path.glob("*.gguf"))


def test_a_hub_that_cannot_be_reached_names_the_mirror(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = convert("-o", str(tmp_path / "x.gguf"))
    assert result.exit_code == 1
    assert "unset HF_ENDPOINT, which is 'http://127.0.0.1:9', or set it to another mirror" in result.stderr


def test_a_hub_that_is_silent_is_told(tmp_path, monkeypatch, silent_host):
    monkeypatch.setattr(silence, "FIRST_S", 0.05)
    monkeypatch.setattr(checkpoint, "_PATIENCE_S", 0.5)  # else it takes 20 s
    monkeypatch.setenv("HF_ENDPOINT", silent_host)
    result = convert("-o", str(tmp_path / "x.gguf"))
    assert result.exit_code == 1
    assert f"\nwaiting for http://{silent_host}: no answer for 0 s, at most 0 s\n" in result.stderr
