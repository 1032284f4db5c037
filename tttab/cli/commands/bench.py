"""`tttab bench`: from the options to a `BenchRequest` of `tttab.bench`, and the results on the terminal."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tttab.cli import options, output
from tttab.cli.commands.report import DEFAULT_OUT, print_report_table, read_results, warn_of_damage
from tttab.cli.invocation import rerun_command, typed
from tttab.cli.lists import numbers, seeds, words
from tttab.text import shell_word, shown

if TYPE_CHECKING:
    from tttab.bench import BenchRequest, Contents, Engine, Plan

SMOKE = {
    "n": "50,200,800",
    "ttt_at": "200",
    "k": 200,
    "seeds": "2",
    "test_size": 250,
    "steps": 10,
    "arms": "icl@n,ttt@n+k,icl@n+k,temperature@n,gbt,logistic",
}
REFERENCE = {
    "n": "1000,2500,5000,10000",
    "arms": "icl@n",
    "seeds": "1-4",
    "model": "tabpfn-v2-finetuned",
    "members": 1,
}
PRESETS: dict[str, dict[str, Any]] = {"smoke": SMOKE, "reference": REFERENCE}
"""Options that a suite sets unless they are typed."""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("bench", rich_help_panel="Research")(bench)


def bench(
    ctx: typer.Context,
    suite: Annotated[
        str | None, typer.Option(help="Suite of tables (default: offline); `tttab data list` shows them.")
    ] = None,
    datasets: Annotated[
        str | None, typer.Option(help="Tables instead of a suite: names, OpenML ids or files, with commas.")
    ] = None,
    n: Annotated[
        str, typer.Option("--n", help="Context sizes for icl@n and ttt@n+k, with commas.")
    ] = "50,100,200,400,600,800,1000",
    k: Annotated[int, typer.Option("--k", help="Training queries with --budget paper.")] = 1000,
    arms: Annotated[
        str | None, typer.Option(help="Methods (arms) to compare, with commas (default: all).")
    ] = None,
    ttt_at: Annotated[str, typer.Option(help="Context sizes for ttt@n+k (default: all).")] = "",
    controls_at: Annotated[
        str, typer.Option(help="Context sizes for the other arms (default: 200, or the n next to it).")
    ] = "",
    seeds: Annotated[str, typer.Option(help="Random seeds: how many (5), or which (0,3,7 or 5-9).")] = "5",
    budget: Annotated[
        str, typer.Option(help="Label budget: `paper` (n + k labels) or `equal` (1,000 in all).")
    ] = "paper",
    test_size: Annotated[
        int | None, typer.Option(help="Test rows (default: a quarter of the table, at most 2,000).")
    ] = None,
    model: options.Model = "auto",
    rule: options.Rule = "full",
    recipe: options.Recipe = "default",
    steps: options.Steps = None,
    lr: options.Rate = None,
    loss: options.Loss = None,
    precision: Annotated[
        str,
        typer.Option(help="Arithmetic of training: fp32 or bf16.", rich_help_panel=options.TRAINING),
    ] = "fp32",
    members: options.Members = None,
    device: options.Device = "auto",
    max_memory: options.MaxMemory = "4G",
    out: Annotated[
        Path, typer.Option(help="Results folder. Run the command again with the same folder to resume.")
    ] = DEFAULT_OUT,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="With --suite reference: exit with 1 if a figure differs from the published one."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    jobs: Annotated[
        int,
        typer.Option("--jobs", "-j", help="Processes on this machine.", rich_help_panel=options.RESOURCES),
    ] = 1,
    threads: Annotated[
        int,
        typer.Option(
            help="Threads per process; they change the last digits.", rich_help_panel=options.RESOURCES
        ),
    ] = 1,
    engine: Annotated[
        str, typer.Option(help="Where cells run: local or ray.", rich_help_panel=options.RESOURCES)
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of a Ray cluster (default: start one here).", rich_help_panel=options.RESOURCES
        ),
    ] = None,
    cell_gpus: Annotated[
        float,
        typer.Option(help="GPUs that a Ray task needs, such as 0.5.", rich_help_panel=options.RESOURCES),
    ] = 0.0,
    cell_memory: Annotated[
        float,
        typer.Option(help="GiB of memory that a Ray task needs.", rich_help_panel=options.RESOURCES),
    ] = 0.0,
    export: Annotated[
        Path | None, typer.Option(help="Write the results to a .parquet, .csv or .bencheval file and stop.")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON line per cell.", rich_help_panel=options.OUTPUT),
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure how many context rows one test-time training replaces.

    Example: [bold]tttab bench --suite smoke --out results[/], then [bold]tttab report results[/]
    """
    if export is not None:
        return _export(out, export, quiet)
    from tttab.bench import Engine
    from tttab.models import pick_device

    request = _request(ctx)
    where = Engine(engine, jobs, address, threads, cell_gpus, cell_memory)
    where.check()
    if engine == "local":
        pick_device(device)
    if not dry_run:
        _check_writable(out)
    plan = _plan(request, quiet=quiet or as_json)
    if dry_run:
        return _print_plan(plan, out, where, as_json=as_json)
    return _run(ctx, request, plan, where)


def _request(ctx: typer.Context) -> BenchRequest:
    """Return the request in the command's options; the suite `smoke` has small defaults of its own."""
    from tttab.bench import ALL_ARMS, BenchRequest
    from tttab.errors import RequestError
    from tttab.system.resources import parse_bytes
    from tttab.training.recipes import schedule_of

    values = dict(ctx.params)
    if values["suite"] and values["datasets"]:
        raise RequestError(
            "--suite and --datasets exclude each other", f"--datasets {shell_word(values['datasets'])}"
        )
    preset = PRESETS.get(values["suite"], {})
    values |= {name: value for name, value in preset.items() if not typed(ctx, name)}
    if values["check"] and values["suite"] != "reference":
        raise RequestError(
            "--check compares with a public table: it goes with one suite", "--suite reference --check"
        )
    if values["suite"] == "smoke":
        values["ttt_at"] = values["ttt_at"] if values["n"] == SMOKE["n"] or typed(ctx, "ttt_at") else ""
    if values["budget"] not in ("paper", "equal"):
        raise RequestError(
            f"there is no label budget {values['budget']!r}", "--budget paper, or --budget equal"
        )
    return BenchRequest(
        tables=_tables(values["suite"], values["datasets"]),
        ns=numbers(values["n"], "n"),
        k=values["k"],
        arms=tuple(words(values["arms"])) if values["arms"] else ALL_ARMS,
        seeds=seeds(values["seeds"]),
        ttt_at=numbers(values["ttt_at"], "ttt-at"),
        controls_at=numbers(values["controls_at"], "controls-at"),
        budget=values["budget"],
        test_size=values["test_size"],
        model=values["model"],
        rule=values["rule"],
        schedule=schedule_of(
            values["recipe"], **{name: values[name] for name in ("steps", "lr", "loss", "precision")}
        ),
        device=values["device"],
        memory=parse_bytes(values["max_memory"]),
        members=values["members"],
        protocol="reference" if values["suite"] == "reference" else "tttab",
    )


def _tables(suite: str | None, datasets: str | None) -> tuple[str, ...]:
    if datasets:
        return tuple(words(datasets))
    from tttab.data import catalog

    return tuple(entry.name for entry in catalog().suite(suite or "offline"))


def _plan(request: BenchRequest, *, quiet: bool) -> Plan:
    """Load the tables and work out the cells, with a bar."""
    from tttab.bench import Plan, plan_tables
    from tttab.errors import RequestError

    request.check()
    found = []
    with output.progress(quiet=quiet) as bar:
        task = bar.add_task("planning", total=len(request.tables), info="")
        for table in plan_tables(request):
            found.append(table)
            bar.update(task, advance=1, info=table.table)
    if not any(table.cells or table.unavailable for table in found):
        why = next((remark for table in found for remark in table.notes), "no arm runs at these sizes")
        raise RequestError(f"nothing to run: {why}", "--n 50,200, or a smaller --test-size")
    for table in found:
        if table.unavailable:
            output.warn(f"{table.table} cannot be read: {table.unavailable}")
        for remark in table.notes:
            output.note(f"note: {remark}", quiet=quiet)
    return Plan(tuple(found))


def _print_plan(plan: Plan, out: Path, engine: Engine, *, as_json: bool) -> None:
    """Print the plan's size per table and what is left of it, with a time estimate."""
    from tttab.bench import estimate_seconds, read_store

    contents = read_store(out)
    warn_of_damage(contents)
    lines: list[tuple[Any, ...]] = []
    known = contents.known
    for table in plan.tables:
        missing = [cell for cell in table.cells if cell.place not in contents.done]
        failed = sum(cell.place in contents.failed for cell in missing)
        to_compute = [cell for cell in missing if cell.key not in known]
        seconds, unknown = estimate_seconds(to_compute, contents.records)
        lines.append((table.table, len(table.cells), len(missing), failed, seconds / engine.jobs, unknown))
    columns = ("table", "cells", "to run", "failed before", "seconds", "cells never measured")
    total = ("all", *(sum(line[i] for line in lines) for i in range(1, len(columns))))
    if as_json:
        return output.print_json([dict(zip(columns, line, strict=True)) for line in [*lines, total]])
    output.print_table(columns, [*lines, total], left=("table",), title="Plan")
    output.note(_time_left(total[2], total[4], total[5], engine.jobs))
    return None


def _time_left(missing: int, seconds: float, unknown: int, jobs: int) -> str:
    """Return a sentence on the time to come: measured cells speak for cells of their arm."""
    measure = "the same command with --seeds 1 measures some"
    if not missing:
        return "nothing to run: every cell is in the store"
    if unknown == missing:
        return f"time: unknown, the store has no measured cell; {measure}"
    known = f"time: about {_duration(seconds)} with {jobs} job{'s' * (jobs > 1)}, from measured cells"
    return f"{known}; nothing is known of {unknown:,} more; {measure}" if unknown else known


def _run(ctx: typer.Context, request: BenchRequest, plan: Plan, engine: Engine) -> None:
    """Run what is missing and print the overall figures; say how to go on where it was stopped."""
    from tttab.bench import Writer, read_store, start, summaries
    from tttab.bench.tables import overall_table
    from tttab.cli.live_table import show
    from tttab.errors import BadAnswer, Interrupted

    out, as_json, quiet = (ctx.params[name] for name in ("out", "as_json", "quiet"))
    before = read_store(out)
    warn_of_damage(before)
    cells = plan.missing(before.done)
    planned = {cell.place for cell in plan.cells}
    earlier = [record for place, record in before.done.items() if place in planned]
    with Writer(out) as writer:
        for table in plan.tables:
            if table.unavailable:
                writer.unavailable(table.table, table.unavailable)
    output.note(f"{len(plan.cells):,} cells, {len(cells):,} to run, store: {shown(out)}", quiet=quiet)
    records = start(cells, request, out, engine, threads=ctx.params["threads"])
    count = 0
    try:
        with closing(records):
            for record in show(records, cells, earlier, quiet=quiet, as_json=as_json):
                count += 1
                if as_json:
                    output.print_json_line(record.to_dict())
    except KeyboardInterrupt:
        message = f"stopped: {count:,} of {len(cells):,} cells are done and kept in {out}"
        raise Interrupted(message, rerun_command()) from None
    contents = read_store(out)
    if not as_json:
        for summary in filter(lambda found: found.pairs, summaries(contents)):
            print_report_table(overall_table(summary), quiet=quiet, over=summary.group.title)
        output.note(f"more: tttab report {shell_word(out)}", quiet=quiet)
    if ctx.params["check"]:
        _check(contents, plan, request, as_json=as_json)
    failed = sum(cell.place in contents.failed for cell in plan.cells)
    unreadable = sum(bool(table.unavailable) for table in plan.tables)
    if failed or unreadable:
        raise BadAnswer(f"{failed:,} cells failed and {unreadable} tables could not be read", rerun_command())


def _check(contents: Contents, plan: Plan, request: BenchRequest, *, as_json: bool) -> None:
    """Print our figures beside the public ones.

    Raises:
        BadAnswer: one is missing, or not within the tolerance.
    """
    from tttab.bench.reference import TOLERANCE, compare
    from tttab.errors import BadAnswer

    records = [contents.done[cell.place] for cell in plan.cells if cell.place in contents.done]
    found = list(compare(records, request.tables, request.ns))
    columns = ("table", "n", "published", "ours", "difference", "seeds", "verdict")
    rows = [
        (
            line.table, line.n, line.published, line.ours,
            None if line.ours is None else f"{line.ours - line.published:+.4f}",
            line.seeds, "ok" if line.passes else "differs" if line.seeds else "missing",
        )
        for line in found
    ]  # fmt: skip
    if not as_json:
        title = f"Macro ROC AUC in context against the public table, tolerance {TOLERANCE:g}"
        output.print_table(columns, rows, left=("table", "verdict"), title=title)
    bad = [f"{line.table} at n = {line.n:,}" for line in found if not line.passes]
    if bad:
        raise BadAnswer(f"{len(bad)} of {len(found)} figures are not ours: {', '.join(bad)}", rerun_command())
    if not as_json:
        output.print_summary(f"All {len(found)} figures are within {TOLERANCE:g}.")


def _export(out: Path, target: Path, quiet: bool) -> None:
    from tttab.bench import export

    path, remarks = export(read_results(out), target)
    for remark in remarks:
        output.warn(remark)
    output.note(f"written: {shown(path)}", quiet=quiet)


def _check_writable(out: Path) -> None:
    """Raise StoreError where no store can be made at `out`, before tables are loaded for it."""
    from tttab.errors import StoreError
    from tttab.system.files import check_writable

    try:
        check_writable(out)
    except OSError as error:
        raise StoreError(
            f"cannot write to {out}: {error.strerror or error}", "--out ANOTHER-FOLDER"
        ) from error


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s" if minutes else f"{left} s"
