"""Embed Parquet or JSON Lines of any size on Spark, into Parquet. The same command goes on where it stopped.

    spark-submit scripts/scale/spark_job.py corpus/ vectors/ -m qwen3-embedding:0.6b --keep id --cpus 4

INPUT and OUTPUT are folders that all machines see, or URIs such as s3://bucket/corpus. OUTPUT/vectors gets a file for
each partition, OUTPUT/rejected what has no vector, with the reason. All machines need q3e-local[parquet] and the
model.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import click

try:
    from pyspark import cloudpickle
    from pyspark.sql import SparkSession
except ModuleNotFoundError:
    sys.exit("this script needs Spark; install it with: pip install pyspark")

import partitions
from partitions import Done, Job, embed_partition, space_of
from plan import Plan, job_options, run

os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
# Workers need no copy of this folder.
cloudpickle.register_pickle_by_value(partitions)


@click.command(help=__doc__)
@job_options
@click.option("--master", help="Of the cluster, where spark-submit does not say it; such as local[4].")
def main(cpus: int, master: str | None, **options: Any) -> None:
    @cache
    def spark() -> SparkSession:
        # Spark sets a worker's threads to the cores of its task.
        builder = SparkSession.builder.appName("q3e-local").config("spark.task.cpus", cpus)
        return (builder.master(master) if master else builder).getOrCreate()

    def on_workers(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        """A task for each item."""
        results: list[Any] = spark().sparkContext.parallelize(items, len(items)).map(function).collect()
        return results

    def ask(job: Job) -> tuple[str, str]:
        (found,) = on_workers(space_of, [job])
        return found

    def compute(plan: Plan) -> Iterator[Done]:
        job = plan.job
        yield from on_workers(lambda partition: embed_partition(job, partition), plan.to_do)

    run(ask, compute, **options)


if __name__ == "__main__":
    main()
