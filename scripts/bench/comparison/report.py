"""A comparison's results as Markdown and as a plot. Reads the results alone: it can be made again at any time."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

from comparison import results as figures
from comparison.roster import COLORS, LABELS
from comparison.workloads import WORKLOADS

ROWS = list(WORKLOADS)
_ENDS = {"died": "died", "skipped": "left out"}


def title(workload: dict[str, Any], n_texts: int) -> str:
    """`64 texts of 128 tokens`."""
    texts = "1 text" if n_texts == 1 else f"{n_texts} texts"
    if workload["is_query"]:
        return f"{n_texts} queries of 21 + 11 tokens"
    if workload["n_clients"]:
        clients = "1 client" if workload["n_clients"] == 1 else f"{workload['n_clients']} clients"
        return f"{clients}, {texts} of {workload['n_tokens']:,} tokens"
    return f"{texts} of {workload['n_tokens']:,} tokens"


def markdown(results: dict[str, Any]) -> str:
    """A table for each model, what was left out, the bound, and what it was measured on."""
    parts: list[str] = []
    for model in models(results):
        cells = cells_of(results, model)
        parts.append(f"### {model}\n\n" + _table(cells))
        bound = _bound(results, model, cells)
        if bound:
            parts.append(bound)
        parts.append(_notes(results, model, cells))
    return "\n\n".join([*parts, _runs(results)]) + "\n"


def models(results: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(cell["model"] for cell in results["cells"].values()))


def cells_of(results: dict[str, Any], model: str) -> list[dict[str, Any]]:
    """This model's cells with a row in them, in the order of the workloads."""
    cells = (cell for cell in results["cells"].values() if cell["model"] == model)
    found = [cell for cell in cells if figures.contenders(cell)]
    return sorted(found, key=lambda cell: ROWS.index(cell["workload"]["name"]))


def _table(cells: list[dict[str, Any]]) -> str:
    lines = [
        "| work | contender | tokens/s | texts/s | ratio | peak memory | cosine to ours | cosine to float32 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        heading = title(cell["workload"], cell["texts"])
        for name in figures.contenders(cell):
            memory = cell["memory"].get(name, {}).get("peak_rss", 0)
            is_base = name == cell["base"]
            speeds = [figures.spread(figures.speeds(cell, name)), _why_not(cell, name)]
            shown = [
                heading,
                f"**{LABELS[name]}**" if is_base else LABELS[name],
                "; ".join(filter(None, speeds)),
                figures.spread(figures.speeds(cell, name, "texts_per_s"), ",.2f"),
                "" if is_base else figures.spread(figures.ratios(cell, name), ".2f"),
                f"{memory / 1e9:.2f} GB" if memory else "",
                "" if is_base else _worst(cell["cosine"], name),
                _worst(cell.get("exactness", {}), name),
            ]
            lines.append("| " + " | ".join(shown) + " |")
            heading = ""
    return "\n".join(lines)


def _worst(cosines: dict[str, Any], name: str) -> str:
    return f"{cosines[name]['min']:.5f}" if name in cosines else ""


def _why_not(cell: dict[str, Any], name: str) -> str:
    """How a contender's process ended, or why it was left out; empty where neither is so."""
    said = [f"{what}: {cell[key][name]}" for key, what in _ENDS.items() if name in cell.get(key, {})]
    return " ".join("; ".join(said).split()).replace("|", "\\|")


def _bound(results: dict[str, Any], model: str, cells: list[dict[str, Any]]) -> str:
    """What this machine's matrix products would allow, and how much of it is reached."""
    peaks = [peak for peak in results["peaks"] if peak["model"] == model]
    batch = [cell for cell in cells if not cell["workload"]["n_clients"] and figures.speeds(cell, cell["base"])]
    if not peaks or not batch:
        return ""
    types = list(dict.fromkeys(name for peak in peaks for name in peak["operations_per_s"]))
    best = {name: [peak["operations_per_s"][name] / 1e9 for peak in peaks if name in peak["operations_per_s"]]
            for name in types}  # fmt: skip
    lines = [
        "The bound is the arithmetic this CPU can do, a matrix product of 512 x 4096 x 4096, measured between the "
        "rounds: " + ", ".join(f"{name} {figures.spread(best[name])}" for name in types) + " billion operations/s. "
        "In tokens/s, at two operations a weight and a token, the token table left out, and attention to half of the "
        "text:",
        "",
        "| text | " + " | ".join(types) + " | q3e-local | of the best |",
        "|---|" + "---|" * (len(types) + 2),
    ]
    for cell in batch:
        cost = figures.operations(cell["shape"], cell["workload"]["n_tokens"])
        bounds = [statistics.median(best[name]) * 1e9 / cost for name in types]
        speeds = figures.speeds(cell, cell["base"])
        ours = statistics.median(speeds)
        lines.append(
            f"| {title(cell['workload'], cell['texts'])} | "
            + " | ".join(f"{bound:,.0f}" for bound in bounds)
            + f" | {ours:,.0f} | {ours / max(bounds):.0%} |"
        )
    return "\n".join(lines)


def _notes(results: dict[str, Any], model: str, cells: list[dict[str, Any]]) -> str:
    """What each contender ran with, and what was tried."""
    lines = ["Settings:", ""]
    for name in LABELS:
        said: dict[str, list[str]] = {}
        for cell in cells:
            if name in cell["settings"] and name in figures.contenders(cell):
                said.setdefault(_shown(cell["settings"][name]), []).append(cell["workload"]["name"])
        for settings, where in said.items():
            lines.append(f"- {LABELS[name]} ({', '.join(where)}): {settings}")
    for key, best in results["best"].items():
        if key.startswith(f"{model}/"):
            tried = "; ".join(f"`{' '.join(one['flags'])}` {one['texts_per_s']:.1f}" for one in best["tries"])
            lines.append(f"- tried on llama-server for {key.partition('/')[2]}, texts/s: {tried}")
    for key, best in results.get("batches", {}).items():
        of, name, work = key.rsplit("/", 2)
        if of == model:
            tried = "; ".join(f"{n_batch} {speed:.1f}" for n_batch, speed in best["texts_per_s"].items())
            lines.append(f"- texts a call tried on {LABELS[name]} ({work}), texts/s: {tried}")
    return "\n".join(lines)


def _shown(settings: Any) -> str:
    if isinstance(settings, dict) and set(settings) == {"command"}:
        return f"`{settings['command']}`"
    return f"`{json.dumps(settings)}`"


def _runs(results: dict[str, Any]) -> str:
    lines = ["Measured:", ""]
    for run in results["runs"]:
        machine, versions = run["machine"], ", ".join(f"{name} {text}" for name, text in run["versions"].items())
        lines.append(
            f"- {run['began']}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 1e9:.0f} GB, "
            f"{machine['system']}; {versions}; commit {run['commit']}; `{run['command']}`"
        )
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Path) -> None:
    """Bars of tokens/s, a panel for each model. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = models(results)
    figure, panels = plt.subplots(len(names), 1, figsize=(11, 4.2 * len(names)), squeeze=False, layout="constrained")
    for panel, model in zip(panels[:, 0], names, strict=True):
        cells = cells_of(results, model)
        shown = [name for name in LABELS if any(name in figures.contenders(cell) for cell in cells)]
        width = 0.84 / max(1, len(shown))
        for place, name in enumerate(shown):
            at, heights, low, high = [], [], [], []
            for number, cell in enumerate(cells):
                speeds = figures.speeds(cell, name)
                where = number + (place - (len(shown) - 1) / 2) * width
                if how := cell.get("died", {}).get(name):
                    speeds = speeds or [0.0]  # a bar without height: the legend has its colour
                    text = f"{LABELS[name]} died: {re.split(' [(]|: |, ', how)[0]}".replace("`", "")
                    style = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": 8}
                    panel.annotate(text, (where, max(speeds)), (0, 3), textcoords="offset points", **style)
                if speeds:
                    middle = statistics.median(speeds)
                    at.append(where)
                    heights.append(middle)
                    low.append(middle - min(speeds))
                    high.append(max(speeds) - middle)
            label = LABELS[name].replace("`", "")
            panel.bar(at, heights, width, yerr=[low, high], label=label, color=COLORS[name], error_kw={"lw": 0.8})
        panel.set_xticks(range(len(cells)), [title(c["workload"], c["texts"]).replace(", ", ",\n").replace(
            " of ", "\nof ") for c in cells], fontsize=8)  # fmt: skip
        panel.set_ylabel("tokens/s")
        panel.set_title(model)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.3)
        panel.set_axisbelow(True)
    panels[0, 0].legend(fontsize=8, ncols=2, frameon=False)
    if results["runs"]:
        run = results["runs"][-1]
        figure.text(0.005, 0.0, f"{run['machine']['cpu']}, {run['machine']['cores']} cores", fontsize=7, va="bottom")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
