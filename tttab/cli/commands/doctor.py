"""`tttab doctor`: what this machine has, and what to do about what it lacks."""

from __future__ import annotations

from typing import Annotated

import typer

from tttab.cli import options, output

MARKS = {"ok": "ok", "note": "note", "bad": "BAD"}


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("doctor", rich_help_panel="Data and models")(doctor)


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON Lines.", rich_help_panel=options.OUTPUT)
    ] = False,
) -> int:
    """Check Python, torch, tabpfn, weights, caches and OpenML; exit 1 if a command would fail.

    Example: [bold]tttab doctor[/]
    """
    from dataclasses import asdict

    from tttab.api.doctor import examine

    findings = []
    with output.waiting("looking around"):
        for finding in examine():
            findings.append(finding)
            if as_json:
                output.print_json_line(asdict(finding))
    if not as_json:
        rows = [
            (MARKS[finding.state], finding.subject, finding.found, finding.advice) for finding in findings
        ]
        output.print_table(
            ("", "what", "found", "what to do"), rows, left=("", "what", "found", "what to do")
        )
    return int(any(finding.state == "bad" for finding in findings))
