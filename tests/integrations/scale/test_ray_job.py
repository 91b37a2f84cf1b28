"""The job for Ray on two nodes: nothing is lost and nothing twice when a node or the job itself is killed."""

from __future__ import annotations

import re

from cluster import elsewhere, kill, n_active, tree, until
from jobs import check_whole, landed, n_from, started, write_json_lines, write_parquet

N = 480


def test_a_job_that_was_killed_goes_on_where_it_stopped(ray_nodes, embedder, tmp_path):
    address, nodes = ray_nodes
    corpus = write_json_lines(tmp_path / "corpus.jsonl", N)
    output, log = tmp_path / "out", tmp_path / "log"
    job = (
        "ray_job.py",
        tmp_path / "corpus.jsonl",
        output,
        "--keep",
        "id",
        "--partition-mb",
        0.03,
        "--address",
        address,
    )
    with started(log, *job) as first:
        until(lambda: len(landed(output)) >= 3, 120, "the job does not begin")
        assert elsewhere([*tree(first), *(each for node in nodes for each in tree(node))]) == []
    before = {path: path.stat().st_mtime_ns for path in (output / "vectors").iterdir()}
    assert len(before) < 20, "the job was killed too late"
    with started(log, *job) as second:
        assert second.wait(300) == 0, log.read_text()
    # Actors work for a moment after the job is gone.
    found = re.search(r"(\d+) of 25 partitions done before", log.read_text())
    assert found, log.read_text()
    n_done_before = int(found[1])
    assert len(before) <= n_done_before < 25
    assert {path: path.stat().st_mtime_ns for path in before} == before
    check_whole(output, corpus, embedder)


def test_a_node_is_lost_half_way(ray_nodes, embedder, tmp_path):
    address, (_, second) = ray_nodes
    corpus = write_parquet(tmp_path / "corpus", N)
    output, log = tmp_path / "out", tmp_path / "log"
    job = ("ray_job.py", tmp_path / "corpus", output, "--partition-mb", 0.03, "--address", address)
    with started(log, *job) as process:
        until(lambda: n_from(output, tree(second)) >= 1, 120, "the second node makes nothing")
        n_before = len(landed(output))
        kill(second)
        assert n_before < 20, "the node was lost too late"
        assert process.wait(300) == 0, log.read_text()
    assert n_active(address) == 1
    assert len(landed(output)) > n_before
    check_whole(output, corpus, embedder)
