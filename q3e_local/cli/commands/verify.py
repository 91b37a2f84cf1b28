"""`q3e-local verify`: is a model right, and what does it cost to take another?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import numpy as np

from q3e_local.cli import candidates
from q3e_local.cli.computing.loading import in_use, load, load_reranker, locate
from q3e_local.cli.exit_codes import DONE, FAILED
from q3e_local.cli.progress import bar, meter
from q3e_local.cli.texts import Layout, find
from q3e_local.cli.writing.show import print_json
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import InputError, OptionError, TextError
from q3e_local.models.catalog import DEFAULT_MODEL
from q3e_local.models.names import Names

if TYPE_CHECKING:
    from q3e_local.checks.report import Report

_DIMS = (1024, 256, 64)


@click.command()
@click.argument("name", default=DEFAULT_MODEL, shell_complete=candidates.model_or_file)
@click.option(
    "--against", metavar="MODEL", shell_complete=candidates.model_or_file,
    help="Compare with this model on the texts of --texts.",
)  # fmt: skip
@click.option(
    "--texts", metavar="FILE", shell_complete=candidates.file, help="A file with a text a line, for --against."
)
@click.option("--offline", is_flag=True, help="Pull nothing that is missing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def verify(name: str, against: str | None, texts: str | None, offline: bool, as_json: bool, quiet: bool) -> int:
    """Check a model: header, tensor types, checksum, vectors, and the scores its authors published. Of a reranker,
    logits take the place of vectors.

    The last line is "right" only where those scores were compared. For a model without published scores it says what
    was checked and what could not be.

    With --against, see what another model or quantization changes on texts of your own: how near a text's two vectors
    are, and how many nearest neighbours stay the same, at full and at cut dims. Exit 1 if a check fails,
    0 if none does.
    """
    if (against is None) != (texts is None):
        raise OptionError("--against and --texts go together: a model to compare with, and the texts to compare on")
    read = [] if texts is None else _read_texts(texts)
    report, facts = _check(name, offline, quiet, against is not None)
    if against is not None:
        facts["comparison"] = _compare(name, against, read, offline, quiet)
    if as_json:
        print_json(facts)
    else:
        _print(facts, report.summary)
    return DONE if report.is_ok else FAILED


def _check(name: str, offline: bool, quiet: bool, compares: bool) -> tuple[Report, dict[str, Any]]:
    from q3e_local.checks import verify, verify_reranker

    name = Names().meaning(name)[0]  # an alias adds an instruction or a dim; the model itself is checked
    located = locate(name, offline, quiet)
    info, total = located.inspect(), located.path.stat().st_size
    if compares and info.kind == "reranker":
        raise OptionError(f"--against compares vectors, and {located.name} is a reranker, which makes none")
    if info.kind == "reranker":
        with in_use(load_reranker(name, offline, quiet)) as reranker, bar(quiet) as show:
            report = verify_reranker.examine(reranker, located, lambda done: show("checking", done, total))
    else:
        with in_use(load(name, offline, quiet)) as embedder, bar(quiet) as show:
            report = verify.examine(embedder, located, lambda done: show("checking", done, total))
    return report, {
        "model": located.name,
        "path": str(located.path),
        "kind": info.kind,
        "quantization": info.quantization,
        "ok": report.is_ok,
        "verdict": report.verdict,
        "checks": [{"what": check.what, "ok": check.is_ok, "detail": check.detail} for check in report.checks],
        "scores": [
            {
                "query": score.query,
                "document": score.document,
                "expected": score.expected,
                "got": round(score.got, 4),
                "difference": round(score.got - score.expected, 4),
                "tolerance": score.tolerance,
                "ok": score.is_ok,
            }
            for score in report.scores
        ],
    }


def _read_texts(path: str) -> list[str]:
    read: list[str] = []
    for item in find([path], [], None, Layout(lines=True)).read():
        if item.problem is not None:
            raise InputError(f"{item.id} {item.problem}")
        read.append(item.text)
    if len(read) < 2:
        raise OptionError(f"comparing neighbours needs at least 2 texts, {path} has {len(read)}")
    return read


def _compare(name: str, against: str, texts: list[str], offline: bool, quiet: bool) -> list[dict[str, Any]]:
    from q3e_local.checks import verify

    both = []
    for model in (name, against):
        n_bytes = [len(text.encode("utf-8")) for text in texts]
        with in_use(load(model, offline, quiet)) as embedder, meter("text", len(texts), sum(n_bytes), quiet) as show:
            request = EmbedRequest(texts, "document", truncate=True)
            vectors = []
            for size, result in zip(n_bytes, embedder.stream(request, show.computed), strict=True):
                if isinstance(result, TextError):
                    raise result
                show.kept(size, result.prompt_tokens, cached=result.cached)
                vectors.append(result.vector)
            both.append(np.stack(vectors))
    ours, theirs = both
    full = min(ours.shape[1], theirs.shape[1])
    dims = [full, *(dim for dim in _DIMS if dim < full)]
    return [
        {
            "dim": compared.dim,
            "n_texts": len(texts),
            "cosine": _spread(compared.cosines) if len(compared.cosines) else None,
            "same_nearest": round(compared.same_nearest, 4),
            f"overlap_at_{compared.k}": round(compared.overlap, 4),
        }
        for compared in verify.compare(ours, theirs, dims)
    ]


def _spread(cosines: Any) -> dict[str, float]:
    low, fifth, middle, high = np.quantile(cosines, [0, 0.05, 0.5, 1]).tolist()
    return {"min": round(low, 5), "p5": round(fifth, 5), "median": round(middle, 5), "max": round(high, 5)}


def _print(facts: dict[str, Any], summary: str) -> None:
    marks = {True: "ok  ", False: "FAIL", None: "-   "}
    click.echo(f"{facts['model']} ({facts['quantization']}): {facts['path']}")
    for check in facts["checks"]:
        click.echo(f"  {marks[check['ok']]}  {check['what']:<20} {check['detail']}")
    what, of = ("scores", "query") if facts["kind"] == "embedder" else ("logits", "document")
    if facts["scores"]:
        click.echo(f"  published {what}       expected     got   difference  tolerance")
        for score in facts["scores"]:
            numbers = f"{score['expected']:8.4f} {score['got']:7.4f}   {score['difference']:+10.4f}"
            click.echo(f"  {marks[score['ok']]}  {score[of][:18]:<18} {numbers}  {score['tolerance']:9.3f}")
    else:
        click.echo(f"  -     no published {what} to compare with")
    for compared in facts.get("comparison", []):
        spread = (compared["cosine"] or {}).items()
        near = "cosine " + ", ".join(f"{name} {value:.4f}" for name, value in spread) + "; " if spread else ""
        rest = ", ".join(
            f"{name} {value:.3f}" for name, value in compared.items() if name.startswith(("same", "overlap"))
        )
        click.echo(f"  dim {compared['dim']}: {near}{rest} ({compared['n_texts']} texts)")
    click.echo(summary)
    from q3e_local.checks.verify import CHECKSUM

    if any(check["what"] == CHECKSUM and check["ok"] is False for check in facts["checks"]):
        # subtle: the cache knows a file by a part of it, and would take this one for the sound one.
        click.echo(f"forget the vectors it gave: q3e-local cache clear --model {facts['model']}")
