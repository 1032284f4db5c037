"""`tttab theory` for linear attention: phase, samples, context, alignment, steps, noise, step-size, all.

What does not belong here: mathematics (`tttab.theory.linear_*`), how rows are printed (`theory_output`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tttab.cli.options import spread
from tttab.cli.theory_output import (
    DeviceOption,
    JsonOption,
    Output,
    PlotOption,
    Row,
    SeedOption,
    drawn,
    finish,
    gather,
    numbers,
    show,
    whole_numbers,
)
from tttab.cli.typed import again
from tttab.errors import RequestError

if TYPE_CHECKING:
    from tttab.theory.linear_attention.curves import Setting

LOSSES = ("eta", "loss_limit", "loss_exact", "loss_measured", "stderr")
GAINS = ("gain_limit", "gain_exact", "gain_measured", "gain_stderr")
MatrixSize = Annotated[int, typer.Option("--d", help="Features.")]
MatrixTrials = Annotated[int, typer.Option(help="Simulated trials per point.")]


@dataclass(frozen=True)
class Simulation:
    """The options of everything that simulates."""

    d: Annotated[int, typer.Option("--d", help="Features.")] = 100
    trials: Annotated[int, typer.Option(help="Simulated trials per point.")] = 10_000
    noise: Annotated[float, typer.Option(help="Variance of the label noise, over |b|^2.")] = 0.0
    convention: Annotated[
        str,
        typer.Option(
            help="Who knows what when the step is chosen. F: fixed beforehand; C: optimal given the context; "
            "T: optimal per trial; S: optimal given the context, loss on that same context."
        ),
    ] = "F"
    sampler: Annotated[
        str, typer.Option(help="scalars: O(1) numbers a trial; vectors: O(d); rows: every row.")
    ] = "scalars"
    seed: SeedOption = 0
    device: DeviceOption = "cpu"
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64"
    memory: Annotated[int, typer.Option(help="Memory for trials, MiB.")] = 1024
    json: JsonOption = False


@dataclass(frozen=True)
class Options(Simulation):
    """The options of every linear experiment."""

    plot: PlotOption = None


@dataclass(frozen=True)
class MatrixOptions(Options):
    """The same for experiments that work with d x d matrices."""

    d: MatrixSize = 60
    trials: MatrixTrials = 4_000


@dataclass(frozen=True)
class FolderOptions(Simulation):
    """The same for the folder, which has a figure of every experiment anyway."""

    d: MatrixSize = 60
    trials: MatrixTrials = 4_000


EXAMPLES = {
    "phase": " --d 60 --plot phase.svg",
    "samples": " --d 100 --plot samples.svg",
    "context": " --d 300 --trials 20000",
    "alignment": " --plot alignment.svg",
    "steps": " --d 60 --json",
    "noise": " --convention F",
    "step-size": " --plot step-size.png",
    "all": " --out figures",
}


def register(theory: typer.Typer) -> None:
    """Add the commands to `tttab theory`."""
    for command in (phase, samples, context, alignment, steps, noise, step_size, everything):
        name = {"everything": "all"}.get(command.__name__, command.__name__.replace("_", "-"))
        example = f"Example: [bold]tttab theory {name}{EXAMPLES[name]}[/]"
        theory.command(name, rich_help_panel="Linear attention (arXiv 2503.11842)", epilog=example)(command)


@spread(Options)
def phase(
    options: Options,
    alpha: Annotated[str, typer.Option(help="Context rows n/d, with commas.")] = "0.25,0.5,1,2",
    gamma: Annotated[str, typer.Option(help="Training rows k/d, with commas.")] = (
        "0.25,0.5,0.75,1,1.25,1.5,2,2.5,3,4"
    ),
) -> None:
    """Pre-trained against zero initialisation over k/d, and where zero begins to win."""
    from tttab.theory.linear_attention import curves as experiments

    alphas, gammas = numbers(alpha, "--alpha", above=0), numbers(gamma, "--gamma", above=0)
    made = experiments.phase(_setting(options), alphas, gammas)
    rows = _run(options, "phase", made, len(alphas) * (2 * len(gammas) + 1))
    _show_phase(rows, _output(options))
    _close(options, rows, "phase")


@spread(Options)
def samples(
    options: Options,
    n: Annotated[
        str | None, typer.Option("--n", help="Context rows, with commas; default d/4, d/2, d, 2d.")
    ] = None,
    k: Annotated[
        str | None, typer.Option("--k", help="Training rows, with commas; default d/10 to 8d.")
    ] = None,
) -> None:
    """Loss and improvement against k at several n, and the context that has the same loss untrained."""
    from tttab.theory import folder as defaults
    from tttab.theory.linear_attention import curves as experiments

    setting = _setting(options)
    ns = whole_numbers(n, "--n") if n else defaults.counts(options.d, defaults.ALPHAS)
    ks = whole_numbers(k, "--k") if k else defaults.counts(options.d, defaults.SAMPLE_GAMMAS)
    rows = _run(options, "samples", experiments.samples(setting, ns, ks), len(ns) * len(ks))
    _show(rows, "samples", _output(options))
    _close(options, rows, "samples")


@spread(Options)
def context(
    options: Options,
    n: Annotated[str | None, typer.Option("--n", help="Context rows, with commas; default 1 to 2d.")] = None,
    k: Annotated[int | None, typer.Option("--k", help="Training rows; default 2d.")] = None,
) -> None:
    """The improvement against n: it rises, peaks and falls."""
    from tttab.theory import folder as defaults
    from tttab.theory.linear_attention import curves as experiments

    setting, (_, k_rows) = _setting(options), _sizes(options, None, k)
    ns = whole_numbers(n, "--n") if n else defaults.context_counts(options.d)
    rows = _run(options, "context", experiments.context(setting, ns, k_rows), len(ns) + 1)
    _show(rows, "context", _output(options))
    _close(options, rows, "context")


@spread(MatrixOptions)
def alignment(
    options: MatrixOptions,
    n: Annotated[int | None, typer.Option("--n", help="Context rows; default d/2.")] = None,
    k: Annotated[int | None, typer.Option("--k", help="Training rows; default 2d.")] = None,
    family: Annotated[
        str, typer.Option(help="Pairs of covariances, with commas: two-level, power-law, random.")
    ] = "two-level,power-law,random",
    share: Annotated[
        str, typer.Option(help="Shares of b in likely directions, 0 to 1, with commas.")
    ] = "0,0.25,0.5,0.75,1",
) -> None:
    """General covariances: the improvement grows as the task turns away from the pre-training."""
    from tttab.theory.linear_attention import covariances as experiments

    setting, families = _setting(options, matrices=True), [name.strip() for name in family.split(",")]
    for name in families:
        experiments.check_family(name, options.d)
    shares = numbers(share, "--share")
    if min(shares) < 0 or max(shares) > 1:
        raise RequestError(f"--share lies between 0 and 1, got {share}", "--share 0,0.5,1")
    n_rows, k_rows = _sizes(options, n, k)
    made = experiments.alignment(setting, n_rows, k_rows, families, shares)
    rows = _run(options, "alignment", made, 2 * len(families) * len(shares))
    _show(rows, "alignment", _output(options))
    _close(options, rows, "alignment")


@spread(MatrixOptions)
def steps(
    options: MatrixOptions,
    n: Annotated[int | None, typer.Option("--n", help="Context rows; default d/2.")] = None,
    k: Annotated[int | None, typer.Option("--k", help="Training rows; default 2d.")] = None,
    count: Annotated[int, typer.Option(help="Steps.")] = 20,
    decay: Annotated[str, typer.Option(help="Decays of the step, with commas.")] = "0.2,0.4,0.6,0.8",
) -> None:
    """Several steps, constant and decaying, and gradient flow, against the single step."""
    from tttab.theory.linear_attention import schedules as experiments

    setting, decays = _setting(options, matrices=True), numbers(decay, "--decay", above=0)
    n_rows, k_rows = _sizes(options, n, k)
    if count < 2:
        raise RequestError(f"--count must be at least 2, got {count}", "--count 20")
    made = experiments.steps(setting, n_rows, k_rows, count, decays)
    rows = _run(options, "steps", made, 2 * len(decays) + 5)
    _show(rows, "steps", _output(options))
    _close(options, rows, "steps")


@spread(Options)
def noise(
    options: Options,
    n: Annotated[int | None, typer.Option("--n", help="Context rows; default d/2.")] = None,
    k: Annotated[int | None, typer.Option("--k", help="Training rows; default 2d.")] = None,
    levels: Annotated[
        str, typer.Option(help="Noise variances over |b|^2, with commas; --noise is not used.")
    ] = "0,0.1,0.25,0.5,1,2",
) -> None:
    """Label noise in context rows, in training rows, in both."""
    from tttab.theory.linear_attention import curves as experiments

    setting, found = _setting(options), numbers(levels, "--levels")
    if min(found) < 0:
        raise RequestError(f"--levels must not be negative, got {min(found):g}", "--levels 0,0.5,1")
    made = experiments.noise(setting, *_sizes(options, n, k), found)
    rows = _run(options, "noise", made, 6 * len(found))
    _show(rows, "noise", _output(options))
    _close(options, rows, "noise")


@spread(Options)
def step_size(
    options: Options,
    n: Annotated[int | None, typer.Option("--n", help="Context rows; default d/2.")] = None,
    k: Annotated[int | None, typer.Option("--k", help="Training rows; default 2d.")] = None,
    multiple: Annotated[
        str, typer.Option(help="Steps in units of the best one, with commas.")
    ] = "0,0.25,0.5,0.75,1,1.25,1.5,1.75,2",
) -> None:
    """The loss as a function of the step, and what other ways to choose the step lose."""
    from tttab.theory.linear_attention import step_rules as experiments

    setting, multiples = _setting(options), numbers(multiple, "--multiple")
    made = experiments.step_size(setting, *_sizes(options, n, k), multiples)
    rows = _run(options, "step-size", made, 2 * len(multiples) + 4)
    _show(rows, "step-size", _output(options))
    _close(options, rows, "step-size")


@spread(FolderOptions)
def everything(
    options: FolderOptions,
    out: Annotated[Path, typer.Option(help="Folder for rows and figures.")],
) -> None:
    """Every figure and table of the linear theory in one folder; what is there already is kept."""
    from tttab.cli.theory_all import run_all

    run_all(_setting(options, matrices=True), out, json_lines=options.json)


def _setting(options: Simulation, *, matrices: bool = False) -> Setting:
    """Return the setting; `matrices`: the experiment forms d x d matrices whatever the sampler."""
    from tttab.theory.linear_attention.curves import Setting
    from tttab.theory.linear_attention.draws import check_machine, check_matrices
    from tttab.theory.linear_attention.measure import Plan
    from tttab.theory.linear_attention.problem import check_convention, check_sizes
    from tttab.theory.plots import check_plot_path

    check_sizes(options.d, 1, 1)
    if options.trials < 100:
        raise RequestError(f"--trials must be at least 100, got {options.trials}", "--trials 10000")
    if not 0 <= options.noise < float("inf"):
        raise RequestError(f"--noise must not be negative, got {options.noise:g}", "--noise 0.5")
    if options.sampler not in ("scalars", "vectors", "rows"):
        raise RequestError(
            f"unknown sampler {options.sampler}; there are scalars, vectors and rows", "--sampler rows"
        )
    if isinstance(options, Options) and options.plot is not None:
        check_plot_path(options.plot)
    machine = check_machine(options.device, options.dtype, options.memory << 20)
    if matrices or options.sampler != "scalars":
        check_matrices(options.d, machine)
    plan = Plan(options.trials, options.seed, machine, options.sampler)
    return Setting(options.d, check_convention(options.convention), options.noise, plan)


def _sizes(options: Options, n: int | None, k: int | None) -> tuple[int, int]:
    from tttab.theory.linear_attention.problem import check_sizes

    sizes = n if n is not None else max(1, options.d // 2), k if k is not None else 2 * options.d
    check_sizes(options.d, *sizes)
    return sizes


def _output(options: Options) -> Output:
    return Output(options.json, options.plot)


def _run(options: Options, name: str, rows: Iterator[Row], total: int) -> list[Row]:
    return gather(rows, _output(options), label=name, total=total)


def _close(options: Options, rows: list[Row], name: str) -> None:
    """Draw the figure and end the command with 0 or 1."""
    if options.plot is not None:
        from tttab.theory.linear_attention.views import figure_panels, figure_title
        from tttab.theory.plots import draw

        draw(figure_panels(name, rows), options.plot, figure_title(rows))
        drawn(options.plot)
    finish(rows, again(trials=4 * options.trials, seed=options.seed + 1))


def _show_phase(rows: list[Row], output: Output) -> None:
    _show([row for row in rows if row.get("kind") != "threshold"], "phase", output)
    last = [row for row in rows if row.get("kind") == "threshold"]
    columns = ("alpha", "d", "gamma_limit", "gamma_exact", "gamma_measured", "interval")
    show(last, columns, output, title="Threshold gamma*: zero wins beyond it")


def _show(rows: list[Row], name: str, output: Output) -> None:
    kinds: dict[Any, list[Row]] = {}
    for row in rows:
        kinds.setdefault(row.get("kind"), []).append(row)
    for kind, part in kinds.items():
        columns = COLUMNS.get((name, kind)) or COLUMNS[name, None]
        first = part[0]
        title = f"{name}{f': {kind}' if kind else ''} · d = {first['d']}, convention {first['convention']}"
        show(part, columns, output, title=title)


COLUMNS: dict[tuple[str, str | None], tuple[str, ...]] = {
    ("phase", None): ("alpha", "gamma", "n", "k", "init", *LOSSES),
    ("samples", None): ("n", "k", *LOSSES[1:], *GAINS[1:], "n_equivalent"),
    ("context", None): ("n", "k", "eta", *GAINS),
    ("context", "peak"): ("k", "n_exact", "n_measured", "n_rule"),
    ("alignment", None): (
        *("family", "alignment", "init", "a2_over_ab"),
        *(*GAINS, "loss_exact", "loss_measured", "gamma_limit", "gamma_exact"),
    ),
    ("steps", None): (
        *("schedule", "decay", "steps", "tuned", "multiple", "loss_start", "loss_exact"),
        *("loss_measured", "stderr", "loss_rows", "share_worse", "diverged"),
    ),
    ("steps", "best"): ("schedule", "decay", "gain_single", "gain_best", "share_kept"),
    ("noise", None): ("where", "noise", "n", "k", "init", *LOSSES),
    ("step-size", None): ("multiple", "eta", "loss_exact", "loss_measured", "stderr"),
    ("step-size", "choice"): (
        *("rule", "eta", "loss_exact", "loss_measured", "stderr"),
        *("lost", "lost_share", "loss_same_context"),
    ),
}
