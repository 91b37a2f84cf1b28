"""The job for Spark on two executors, processes of their own: nothing is lost or twice when one is killed."""

from __future__ import annotations

import shutil

import psutil
import pytest
from cluster import elsewhere, kill, tree, until
from jobs import check_whole, landed, started, write_parquet

# Two executors of one core and 1,024 MB each.
MASTER = "local-cluster[2,1,1024]"


@pytest.mark.skipif(
    shutil.which("java") is None, reason="Spark needs a Java runtime, as Debian's default-jre-headless"
)
def test_an_executor_is_lost_half_way(embedder, tmp_path):
    corpus = write_parquet(tmp_path / "corpus", 300)
    output, log = tmp_path / "out", tmp_path / "log"
    job = ("spark_job.py", tmp_path / "corpus", output, "--partition-mb", 0.05, "--master", MASTER)
    with started(log, *job) as process:
        until(lambda: len(landed(output)) >= 2, 180, "the job makes nothing")
        assert elsewhere(tree(process)) == []
        n_before = len(landed(output))
        kill(executor_of(landed(output)))
        assert n_before < 15, "the executor was lost too late"
        assert process.wait(300) == 0, log.read_text()
    assert "Lost executor" in log.read_text()
    assert len(landed(output)) > n_before
    check_whole(output, corpus, embedder)


def executor_of(made_by: dict[str, str]) -> psutil.Process:
    """The executor whose worker made one of the files."""
    worker = psutil.Process(int(next(iter(made_by.values())).rpartition(":")[2]))
    return next(each for each in worker.parents() if "CoarseGrainedExecutorBackend" in " ".join(each.cmdline()))
