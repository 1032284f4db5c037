"""`tttab pretrain`: make a checkpoint in TabPFN v2's architecture from synthetic tables."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tttab.cli import options, output
from tttab.cli.invocation import rerun_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tttab.pretrain.loop import Report, Run
    from tttab.pretrain.settings import Budget

pretrain = typer.Typer(
    name="pretrain",
    help="Pre-train a small checkpoint on synthetic tables, and choose its prediction settings.",
    no_args_is_help=False,
)
TaskName = Annotated[str, typer.Option("--task", help="Task: classification or regression.")]


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    app.add_typer(pretrain, rich_help_panel="Research")


@pretrain.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    preset: Annotated[
        str,
        typer.Option(
            help="Recipe: small (one large GPU); nano (2 cores), nano-long, nano-deep, nano-kinds, "
            "nano-regressor; tiny."
        ),
    ] = "nano",
    task: TaskName = "classification",
    out: Annotated[Path, typer.Option(help="Folder for the model, the state and the log.")] = Path(
        "pretrained"
    ),
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda or cuda:N.")] = "cpu",
    minutes: Annotated[
        float | None, typer.Option(help="Time limit in minutes (default: the preset's).")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Number of steps instead of a time limit; repeats bit for bit.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that draw tables from tabicl's prior.")] = 0,
    pool: Annotated[
        Path | None,
        typer.Option(help="Folder of tables from tabicl's prior (default: OUT/pool with workers)."),
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option("--from", help="A model file to train further, with a new schedule.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network's blocks with torch.compile.")
    ] = False,
    precision: Annotated[
        str, typer.Option(help="Arithmetic of training: auto (bf16 if the hardware has it), fp32 or bf16.")
    ] = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Train on synthetic tables until the time or steps are used; the same command resumes.

    Writes OUT/model.safetensors (plain TabPFNClassifier or TabPFNRegressor loads it), OUT/log.jsonl,
    OUT/loss.png and OUT/state.pt.

    Example: [bold]tttab pretrain --preset nano --workers 1 --out nano-classifier[/]
    """
    if context.invoked_subcommand is not None:
        return
    from tttab.errors import Interrupted
    from tttab.pretrain.loop import Run
    from tttab.pretrain.settings import MINUTES, Budget, recipe
    from tttab.system.files import check_writable
    from tttab.system.resources import keep_freed_memory

    settings = recipe(preset, task)
    budget = Budget(steps, MINUTES[preset] if steps is None and minutes is None else minutes)
    folder = pool or (out / "pool" if workers else None)
    check_writable(out)
    run = Run(
        settings, budget, out, seed, _checked_device(device), folder, workers, start_from, compiled, precision
    )
    keep_freed_memory()
    try:
        last = _follow(run, quiet)
    except KeyboardInterrupt:
        hint = f"{rerun_command()} continues from the last state"
        raise Interrupted("pre-training interrupted", hint) from None
    _finish(run, last)


@pretrain.command()
def fill(
    pool: Annotated[Path, typer.Argument(help="Folder the tables are written to.")],
    preset: Annotated[
        str, typer.Option(help="Recipe of the tables; those of nano-long have more rows.")
    ] = "nano",
    minutes: Annotated[float, typer.Option(help="Time limit in minutes.")] = 10.0,
    workers: Annotated[int, typer.Option(help="Number of processes.")] = 2,
    seed: Annotated[int, typer.Option(help="Random seed of the tables.")] = 0,
    quiet: options.Quiet = False,
) -> None:
    """Draw tables from tabicl's prior ahead, so that training has every core afterwards.

    Example: [bold]tttab pretrain fill pool --preset nano-long --minutes 12[/]
    """
    from tttab.errors import Interrupted
    from tttab.pretrain.pool import fill as make
    from tttab.pretrain.settings import recipe

    pool_settings, start, files = recipe(preset, "classification").pool, time.monotonic(), 0
    try:
        with output.progress(quiet=quiet) as bar:
            work = bar.add_task("making tables", total=60.0 * minutes, info="")
            for files in make(pool, seed, workers, pool_settings, minutes):
                bar.update(work, completed=time.monotonic() - start, info=f"{files:,} files")
    except KeyboardInterrupt:
        raise Interrupted(f"{files:,} files are in {pool}", f"{rerun_command()} goes on") from None
    output.print_line(f"{files:,} files in {pool}")


@pretrain.command()
def choose(
    model: Annotated[Path, typer.Argument(help="A model file that `tttab pretrain` wrote.")],
    task: TaskName = "classification",
    preset: Annotated[
        str, typer.Option(help="Recipe of the tables; those of nano-kinds have categories.")
    ] = "nano",
    tables: Annotated[int, typer.Option(help="Held-out synthetic tables to evaluate on.")] = 24,
    members: Annotated[
        int, typer.Option(help="Largest number of ensemble members; prediction time grows with them.")
    ] = 1,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("served.json"),
    quiet: options.Quiet = False,
) -> None:
    """Choose tabpfn's feature transforms, ensemble size and temperature on synthetic tables.

    Example: [bold]tttab pretrain choose nano-classifier/model.safetensors --out served.json[/]
    """
    import json

    from tttab.errors import ModelError, RequestError
    from tttab.models import open_model
    from tttab.pretrain import choose as choosing
    from tttab.pretrain.settings import Mixture, recipe
    from tttab.system.files import check_target, write_text_atomically

    made_by = recipe(preset, task)
    kind, mixed = made_by.task, made_by.mixture != Mixture()
    if tables < 1 or members < 1:
        raise RequestError("at least one table and one member are needed", "--tables 24 --members 1")
    check_target(out)
    try:
        open_model(str(model), kind, device="cpu")  # with its checks, before tabpfn reads the file
    except ModelError as error:
        raise RequestError(error.message, "a model that tttab pretrain wrote, with its --task") from error
    tried = []
    with output.progress(quiet=quiet) as bar:
        work = bar.add_task("making tables", total=tables + len(choosing.candidates(members, mixed)), info="")
        held_out = []
        for table in choosing.tables(kind, tables, preset):
            held_out.append(table)
            bar.advance(work)
        for one in choosing.compare(model, kind, held_out, members):
            tried.append(one)
            bar.update(work, advance=1, description="serving", info=f"{one.name}: {one.loss:.4f}")
    chosen = choosing.best(tried)
    served = chosen.overrides | {"SOFTMAX_TEMPERATURE": choosing.temperature(chosen, held_out)}
    write_text_atomically(out, json.dumps(served, indent=2) + "\n")
    rows = [(one.name, one.members, one.loss, "chosen" if one is chosen else "") for one in tried]
    output.print_table(("served with", "members", "loss, nats", ""), rows, left=("served with", ""))
    output.note(f"written to {out}, temperature {served['SOFTMAX_TEMPERATURE']}", quiet=quiet)


@pretrain.command()
def bundle(
    run: Annotated[Path, typer.Argument(help="The folder of a run: model, state and log.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write; its card goes beside it.")],
    served: Annotated[Path, typer.Option(help="File of `tttab pretrain choose`.")] = Path("served.json"),
    preset: Annotated[str, typer.Option(help="Recipe of the run.")] = "nano",
    task: TaskName = "classification",
    machine: Annotated[str, typer.Option(help="The hardware, for the model card.")] = "not stated",
    earlier: Annotated[
        Path | None, typer.Option(help="YAML list of earlier training runs, for the model card.")
    ] = None,
) -> None:
    """Write a model for the package: small, with its prediction settings and a card.

    Example: [bold]tttab pretrain bundle nano-classifier tttab-tiny-classifier.safetensors[/]
    """
    from tttab.errors import RequestError, TttabError
    from tttab.pretrain.bundle import bundle as write
    from tttab.pretrain.bundle import facts_of, read_earlier, read_served
    from tttab.pretrain.loop import MODEL
    from tttab.pretrain.settings import recipe
    from tttab.system.files import check_target

    settings, serving = recipe(preset, task), read_served(served)
    check_target(out)
    check_target(out.with_suffix(".md"))
    facts = facts_of(run, settings, machine, read_earlier(earlier) if earlier else [])
    try:
        storage = write(run / MODEL, out, settings, serving, facts)
    except TttabError:
        raise
    except (ValueError, TypeError) as error:  # no inference configuration of tabpfn's
        raise RequestError(
            f"{served} is no way of serving: {str(error).splitlines()[0]}", "tttab pretrain choose MODEL"
        ) from error
    output.print_line(f"{out}: {out.stat().st_size:,} bytes, {storage}")
    output.print_line(f"{out.with_suffix('.md')}: its card; the text below the head is yours to write")


def _checked_device(name: str) -> str:
    import torch

    from tttab.errors import RequestError

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise RequestError(f"no device {name!r}: {str(error).splitlines()[0]}", "--device cpu") from error
    return name


def _follow(run: Run, quiet: bool) -> Report:
    """Show a bar on a terminal, a line every few seconds elsewhere; return the last report."""
    from tttab.pretrain.loop import train

    last = None
    with output.progress(quiet=quiet) as bar:
        task = bar.add_task("pre-training", total=1000, info="")
        for report in train(run):
            last = report
            text = _line(report, run.budget)
            bar.update(task, completed=round(1000 * report.progress), info=text)
            if not output.stderr().is_terminal or report.held_out:
                output.note(text, quiet=quiet)
    if last is None:  # the generator always ends with a report
        raise AssertionError("no report")
    return last


def _line(report: Report, budget: Budget) -> str:
    used = report.counters
    left = used.seconds * (1.0 - report.progress) / max(report.progress, 1e-6)
    loss = f"loss {report.loss:.3f}"
    if report.held_out:
        loss += ", held out " + " ".join(f"{name}: {value:.3f}" for name, value in report.held_out.items())
    seconds = max(used.seconds, 1e-9)
    return (
        f"{100 * report.progress:.0f} % · {loss} · {used.tables:,} tables ({used.pooled:,} from a pool of "
        f"{report.pool:,}) · {used.tokens / seconds:,.0f} cells/s · "
        f"waiting {100 * used.waited / seconds:.0f} % · {time.strftime('%H:%M:%S', time.gmtime(left))} left"
    )


def _finish(run: Run, last: Report) -> None:
    from tttab.pretrain.curve import draw_curve, read_log
    from tttab.pretrain.loop import CURVE, LOG, MODEL

    damaged: list[str] = []
    draw_curve(list(read_log(run.out / LOG, damaged)), run.out / CURVE)
    if damaged:
        output.warn(f"{len(damaged):,} damaged lines were left out of the curve: {', '.join(damaged[:20])}")
    rows: Iterator[tuple[str, object]] = iter(
        [
            ("model", str(run.out / MODEL)),
            ("steps", last.counters.step),
            ("tables", last.counters.tables),
            ("from tabicl", last.counters.pooled),
            ("cells", last.counters.tokens),
            ("seconds", round(last.counters.seconds, 1)),
            ("waiting share", last.counters.waited / max(last.counters.seconds, 1e-9)),
            ("skipped steps", last.counters.skipped),
            *((f"held-out loss, {name}", value) for name, value in last.held_out.items()),
        ]
    )
    output.print_table(("what", "value"), rows, left=("what",))
