"""Engines on this machine alone: a home of the tests' own, nothing sent to anybody, a Ray cluster of two nodes."""

from __future__ import annotations

import os
import tempfile

# Before any engine is imported; what the tests start inherits them.
os.environ |= {
    "HOME": tempfile.mkdtemp(prefix="q3e-scale-"),
    "HF_HUB_OFFLINE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DAFT_ANALYTICS_ENABLED": "0",
    "SPARK_LOCAL_IP": "127.0.0.1",
    "SPARK_WORKER_DIR": tempfile.mkdtemp(prefix="q3e-spark-"),
    "PYSPARK_SUBMIT_ARGS": "--conf spark.ui.enabled=false --conf spark.driver.host=127.0.0.1 pyspark-shell",
}

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import ray_cluster

import q3e_local


@pytest.fixture(scope="session")
def embedder() -> Iterator[q3e_local.Embedder]:
    with q3e_local.load("demo") as embedder:
        yield embedder


@pytest.fixture(scope="session")
def ray_nodes():
    """A cluster's address and its two nodes; the last test that has it kills the second."""
    with ray_cluster() as cluster:
        yield cluster
