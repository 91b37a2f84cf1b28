"""How much memory several processes with one model take together: they map the weights, and so share them.

    python scripts/convert/make_synthetic.py --size 0.6b -o synth-0.6b.gguf
    python scripts/bench/shared_memory.py -m synth-0.6b.gguf --processes 4

Each process is what an actor of Ray or a worker of Spark is: an EmbedBatches that has embedded 64 texts with one
thread. RSS is what a process has in memory; PSS counts a page that n processes share as an n-th for each of them, so
that the sum is what all take together. Linux alone says so, in /proc/PID/smaps_rollup.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import click

_WORKER = """
import sys, q3e_local
embed = q3e_local.EmbedBatches(sys.argv[1], n_threads=1)
embed([f"The cat number {place} sleeps in house {place * 7}." for place in range(64)])
print("ready", flush=True)
sys.stdin.read()
"""


@click.command(help=__doc__)
@click.option("-m", "--model", default="demo", show_default=True)
@click.option("--processes", "n_max", type=click.IntRange(1), default=2, show_default=True)
def main(model: str, n_max: int) -> None:
    click.echo(
        "| processes | RSS of the last, MB | its own, MB | shared, MB | PSS of all, MB |\n|---|---|---|---|---|"
    )
    with ExitStack() as stack:
        workers: list[subprocess.Popen[str]] = []
        for n_workers in range(1, n_max + 1):
            command = [sys.executable, "-c", _WORKER, model]
            worker = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            workers.append(worker)
            if worker.stdout is None or worker.stdout.readline() != "ready\n":
                sys.exit(f"worker {n_workers} ended before it was ready")
            last, total = memory(worker.pid), sum(memory(each.pid)["Pss"] for each in workers)
            row = (last["Rss"], last["Private_Dirty"], last["Shared_Clean"], total)
            click.echo(f"| {n_workers} | {' | '.join(f'{n_bytes / 1e6:,.0f}' for n_bytes in row)} |")
        for worker in workers:
            worker.kill()


def memory(pid: int) -> dict[str, int]:
    """Bytes by kind, as Linux calls the kinds."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    return {name.rstrip(":"): int(n_kib) * 1024 for name, n_kib, _ in map(str.split, lines)}


if __name__ == "__main__":
    main()
