"""Embed Parquet or JSON Lines of any size on a Ray cluster, into Parquet. The same command goes on where it stopped.

    python scripts/scale/ray_job.py corpus/ vectors/ -m qwen3-embedding:0.6b --keep id --cpus 4

INPUT and OUTPUT are folders that all machines see, or URIs such as s3://bucket/corpus. OUTPUT/vectors gets a file for
each partition, OUTPUT/rejected what has no vector, with the reason. All machines need q3e-local[parquet] and the
model.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click
import pyarrow as pa

try:
    import ray
    from ray import cloudpickle
    from ray.data import ActorPoolStrategy, DataContext
except ModuleNotFoundError:
    sys.exit("this script needs Ray; install it with: pip install 'ray[data]'")

import partitions
from partitions import Done, Job, Partition, embed_partition, space_of
from plan import Plan, job_options, run

_BLOCKS_MAX = 10_000  # Ray Data keeps books for each
# Workers need no copy of this folder.
cloudpickle.register_pickle_by_value(partitions)


class EmbedPartitions:
    """What an actor does: it keeps its model from one partition to the next."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self, batch: pa.Table) -> pa.Table:
        """What became of each of these partitions."""
        done = [embed_partition(self._job, Partition(**row)) for row in batch.to_pylist()]
        return pa.Table.from_pylist([asdict(each) for each in done])


@click.command(help=__doc__)
@job_options
@click.option("--actors", type=click.IntRange(1), help="Workers. [default: as many as the cluster has cores for]")
@click.option(
    "--address", default="auto", show_default=True, help="Of the cluster; local starts one on this machine."
)
def main(cpus: int, actors: int | None, address: str, **options: Any) -> None:
    def ask(job: Job) -> tuple[str, str]:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="warning")
        except ConnectionError as error:
            sys.exit(
                f"error: no Ray cluster at {address}: {error}; start one with ray start --head, or --address local"
            )
        found: tuple[str, str] = ray.get(ray.remote(num_cpus=cpus)(space_of).remote(job))
        return found

    def compute(plan: Plan) -> Iterator[Done]:
        DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        n_actors = actors or max(1, int(ray.cluster_resources().get("CPU", 1)) // cpus)
        work = [asdict(each) for each in plan.to_do]
        done = ray.data.from_items(work, override_num_blocks=min(len(work), _BLOCKS_MAX)).map_batches(
            EmbedPartitions,
            fn_constructor_args=(plan.job,),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=cpus,
            # The job begins when one actor is there, and goes on with those that are left.
            compute=ActorPoolStrategy(min_size=1, max_size=n_actors, initial_size=n_actors),
        )
        for row in done.iter_rows():
            yield Done(**row)

    run(ask, compute, **options)


if __name__ == "__main__":
    main()
