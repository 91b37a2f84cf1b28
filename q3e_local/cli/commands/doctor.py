"""`q3e-local doctor`: prints what `q3e_local.checks.doctor` finds."""

from __future__ import annotations

from dataclasses import asdict

import click

from q3e_local.cli.exit_codes import DONE, FAILED
from q3e_local.cli.writing.show import print_json


@click.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
def doctor(as_json: bool) -> int:
    """Look at CPU, memory, llama.cpp, folders and models, and embed a short text with the demo model."""
    from q3e_local.checks.doctor import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            click.echo(f"{'ok  ' if finding.ok else 'WARN'}  {finding.what:<10} {finding.text}")
            if finding.advice:
                click.echo(f"{'':<16} -> {finding.advice}")
    if as_json:
        print_json([asdict(finding) for finding in findings])
    return DONE if all(finding.ok for finding in findings) else FAILED
