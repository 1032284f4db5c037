"""`tttab theory exponents | weak | strong | single-index`: the second paper's algorithm, measured.

What does not belong here: any computation (`tttab.theory`), the transformers (`theory_transformer`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tttab.cli.console import print_json_line, print_table, say
from tttab.cli.options import spread
from tttab.cli.theory_output import (
    DeviceOption,
    JsonOption,
    Output,
    PlotOption,
    Row,
    SeedOption,
    drawn,
    gather,
    numbers,
    show,
    whole_numbers,
)
from tttab.errors import RequestError

LinkOption = Annotated[str, typer.Option(help="A polynomial: He<k> or z^k with weights.")]
FullOption = Annotated[bool, typer.Option("--full", help="The long version: more tasks, more points.")]
NoiseOption = Annotated[float, typer.Option(help="tau: labels move by +tau or -tau.")]
TasksOption = Annotated[int, typer.Option(help="Tasks per point; 0: the default of the version.")]
TempOption = Annotated[float, typer.Option(help="Temperature of the attention.")]
TiltOption = Annotated[
    float, typer.Option(help="Share of positive neurons of stage I's student above one half.")
]


@dataclass(frozen=True)
class Common:
    """Options of every command here that draws."""

    noise: NoiseOption = 0.1
    tasks: TasksOption = 0
    seed: SeedOption = 0
    device: DeviceOption = "cpu"
    full: FullOption = False
    json_lines: JsonOption = False
    plot: PlotOption = None

    @property
    def output(self) -> Output:
        """Return where rows go."""
        return Output(self.json_lines, self.plot)


@dataclass(frozen=True)
class StageOne:
    """The choices of stage I."""

    temp: TempOption = 1.0
    tilt: TiltOption = 0.05
    queries: Annotated[int, typer.Option(help="Fresh queries of self-distillation.")] = 2048


@dataclass(frozen=True)
class Ablations:
    """What the pipeline can leave out."""

    skip_stage_1: Annotated[bool, typer.Option(help="Start stage II from a random direction.")] = False
    no_distill: Annotated[bool, typer.Option(help="Stage I on the labels themselves.")] = False
    link_fixed: Annotated[bool, typer.Option(help="The same link for every task.")] = False


PANEL = "Single-index models and transformers (arXiv 2509.25741)"


def register(theory: typer.Typer) -> None:
    """Add the commands to `tttab theory`."""
    from tttab.cli.theory_transformer import transformer

    def add(name: str, command: Callable[..., Any], words: str) -> None:
        example = f"Example: [bold]tttab theory {name} {words}[/]"
        theory.command(name, rich_help_panel=PANEL, epilog=example)(command)

    add("exponents", exponents, "--link 'He3 + 0.5*He4'")
    add("weak", spread(StageOne, "stage")(spread(Common)(weak)), "--plot weak.svg")
    add("strong", spread(Common)(strong), "--plot strong.svg")
    pipeline = spread(Ablations, "ablations")(spread(StageOne, "stage")(spread(Common)(single_index)))
    add("single-index", pipeline, "--no-distill")
    add("transformer", transformer, "--paper B --plot context.svg")


def exponents(
    link: LinkOption = "He3 + 0.5*He4",
    powers: Annotated[int, typer.Option(help="Largest power j in the table of ie(s^j).")] = 6,
    json_lines: JsonOption = False,
) -> None:
    """Information and generative exponent of a polynomial link, by exact algebra."""
    from tttab.theory.single_index import hermite

    if not 1 <= powers <= 12:
        raise RequestError(f"--powers lies between 1 and 12, got {powers}", "--powers 6")
    series = hermite.parse_link(link)
    table = hermite.exponents_of_powers(series, powers)
    facts = {"ie": hermite.information_exponent(series), "ge": hermite.generative_exponent(series)}
    if json_lines:
        for j, exponent in enumerate(table, start=1):
            print_json_line(
                {"experiment": "exponents", "link": link, **facts, "j": j, "ie_of_power": exponent}
            )
        return
    print_table(["j", "ie(s^j)"], list(enumerate(table, start=1)), title=link)
    say(f"ie = {facts['ie']}, ge = {facts['ge']} ({_parity(series)})")


def _parity(series: tuple[Any, ...]) -> str:
    from tttab.theory.single_index.hermite import is_even

    return "even: no function of s has a first Hermite weight" if is_even(series) else "not even"


def weak(
    options: Common,
    stage: StageOne,
    links: Annotated[str, typer.Option(help="Links, with commas.")] = "He2,He3,He4,He3 + 0.5*He4",
    r: Annotated[str, typer.Option("--r", help="Dimensions of the subspace, with commas.")] = "16,32",
    n1: Annotated[str, typer.Option(help="Rows of stage I, with commas.")] = "",
    d: Annotated[int, typer.Option(help="Features; 0: as many as r.")] = 0,
) -> None:
    """Stage I: alignment of one self-distilled step against N1, beside direct steps and a random start."""
    _check(options, stage)
    from tttab.theory.single_index.checks import check_weak
    from tttab.theory.single_index.weak import WeakSettings, weak_rows

    settings = WeakSettings(
        links=tuple(part.strip() for part in links.split(",")),
        ranks=_whole(r, "--r"),
        rows=_whole(n1 or ("256,512,1024,2048,4096,8192,16384" if options.full else "256,1024,4096"), "--n1"),
        d=d,
        tasks=options.tasks or (96 if options.full else 16),
        noise=options.noise,
        how=_pipeline(stage),
        seed=options.seed,
        device=options.device,
    )
    check_weak(settings)
    total = 4 * len(settings.links) * len(settings.ranks) * len(settings.rows)
    rows = gather(weak_rows(settings), options.output, label="stage I", total=total)
    columns = ["link", "ie", "ge", "r", "n1", "method", "alignment", "stderr", "median", "floor", "stuck"]
    _present(rows, columns, options, "weak", "Weak recovery: mean |<b, u1>| over tasks")


def strong(
    options: Common,
    link: LinkOption = "He2",
    r: Annotated[int, typer.Option("--r", help="Dimension of the subspace.")] = 8,
    eps: Annotated[str, typer.Option(help="Targets of 1 - <b, u>, with commas.")] = "0.2,0.1,0.05,0.02,0.01",
    loss: Annotated[str, typer.Option(help="correlation or squared.")] = "correlation",
    start: Annotated[float, typer.Option(help="Alignment at the start.")] = 0.5,
) -> None:
    """Stage II: geometric decay to a floor, and samples to eps against eps^-1 log(1/eps) and eps^-2."""
    _check(options)
    if loss not in ("correlation", "squared"):
        raise RequestError(f"there is no loss {loss}", "--loss correlation")
    if r < 2 or not 0 < start < 1:
        raise RequestError("r is at least 2 and the start lies between 0 and 1", "--r 8 --start 0.5")
    targets = tuple(sorted(numbers(eps, "--eps", above=0), reverse=True))
    if targets[0] >= 1 - start:
        raise RequestError(f"the start already has an error of {1 - start:g}", "--eps 0.2,0.1,0.05")
    from tttab.theory.single_index.checks import check_strong
    from tttab.theory.single_index.strong import StrongSettings, strong_rows

    common = {"noise": options.noise, "seed": options.seed, "device": options.device}
    tasks = options.tasks or (1024 if options.full else 96)
    settings = StrongSettings(link, r, start, targets, loss, tasks=tasks, **common)  # type: ignore[arg-type]
    check_strong(settings)
    total = settings.points + len(targets) + 2
    rows = gather(strong_rows(settings), options.output, label="stage II", total=total)
    trace = [row for row in rows if row["kind"] == "trace"]
    shown = [*trace[:: max(1, len(trace) // 8)], *[row for row in rows if row["kind"] != "trace"]]
    columns = ["kind", "steps", "error", "stderr", "median", "predicted", "floor", "eps", "eta"]
    columns += [
        "reached",
        "steps*eps/log(1/eps)",
        "steps*eps^2",
        "spread_log_law",
        "spread_square_law",
        "stuck",
    ]
    _present(rows, columns, options, "strong", f"Strong recovery, {link}, r = {r}", shown)


def single_index(
    options: Common,
    stage: StageOne,
    ablations: Ablations,
    n: Annotated[str, typer.Option("--n", help="Prompt lengths, with commas.")] = "",
    d: Annotated[str, typer.Option("--d", help="Features, with commas: one curve each.")] = "32",
    r: Annotated[int, typer.Option("--r", help="Dimension of the subspace.")] = 16,
    link: LinkOption = "He3",
    pretraining_tasks: Annotated[
        int, typer.Option(help="Tasks that G is pre-trained on; 0: infinitely many.")
    ] = 0,
) -> None:
    """Test error of all three stages against N, with the noise level and the one-layer in-context model.

    The link varies: He4's weight is drawn from U(-0.5, 0.5) for each task, unless --link-fixed.
    """
    _check(options, stage)
    from tttab.theory.single_index.checks import check_pipeline
    from tttab.theory.single_index.pipeline import PipelineSettings, pipeline_rows

    if ablations.skip_stage_1 and ablations.no_distill:
        raise RequestError("--skip-stage-1 and --no-distill exclude each other", "give one of them")
    default = "512,1024,2048,4096,8192,16384,32768,65536" if options.full else "1024,4096,16384"
    settings = PipelineSettings(
        rows=_whole(n or default, "--n"),
        dims=_whole(d, "--d"),
        r=r,
        link=link,
        vary=0 if ablations.link_fixed else 4,
        noise=options.noise,
        tasks=options.tasks or (256 if options.full else 16),
        pretraining_tasks=pretraining_tasks,
        how=_pipeline(stage, _weak_method(ablations)),
        seed=options.seed,
        device=options.device,
    )
    check_pipeline(settings)
    total = 2 * len(settings.rows) * len(settings.dims)
    rows = gather(pipeline_rows(settings), options.output, label="pipeline", total=total)
    columns = ["d", "n", "method", "error", "stderr", "median", "noise_level"]
    columns += ["weak_alignment_mean", "weak_alignment_median", "strong_alignment_median", "stuck"]
    _present(rows, columns, options, "single-index", f"{link}, r = {r}: squared error on new rows")


def _weak_method(ablations: Ablations) -> str:
    if ablations.skip_stage_1:
        return "random"
    return "direct" if ablations.no_distill else "distill"


def _pipeline(stage: StageOne, method: str = "distill") -> Any:
    from tttab.theory.single_index.algorithm import Pipeline
    from tttab.theory.single_index.stages import Student

    return Pipeline(method, stage.queries, Student(tilt=stage.tilt), stage.temp)  # type: ignore[arg-type]


def _whole(text: str, option: str) -> tuple[int, ...]:
    return tuple(whole_numbers(text, option))


def _check(options: Common, stage: StageOne | None = None) -> None:
    """Raise RequestError for what no experiment can use, before anything heavy is imported."""
    if not 0 <= options.noise < math.inf or options.tasks < 0:
        raise RequestError("--noise and --tasks are numbers from 0", "--noise 0.1 --tasks 16")
    if stage and not (0 < stage.temp < math.inf and stage.queries >= 1 and abs(stage.tilt) <= 0.5):
        raise RequestError(
            "--temp is above 0, --queries at least 1, --tilt between -0.5 and 0.5",
            "--temp 1 --queries 2048 --tilt 0.05",
        )
    check_output(options.plot, options.device)


def check_output(plot: Path | None, device: str) -> None:
    """Raise RequestError for a plot that cannot be drawn or a device that is not there."""
    from tttab.theory.linear_attention.draws import check_device
    from tttab.theory.plots import check_plot_path

    if plot is not None:
        check_plot_path(plot)
    check_device(device)


def _present(
    rows: Sequence[Row],
    columns: Sequence[str],
    options: Common,
    name: str,
    title: str,
    shown: Sequence[Row] | None = None,
) -> None:
    """Print the table and draw the figure."""
    show(shown or rows, columns, options.output, title=title)
    draw_rows(rows, options.plot, name, title)


def draw_rows(rows: Sequence[Row] | Iterator[Row], plot: Path | None, name: str, title: str) -> None:
    """Draw the figure of the experiment `name` where one is wanted."""
    if plot is None:
        return
    from tttab.theory.plots import draw
    from tttab.theory.single_index.figures import PANELS

    draw(PANELS[name](list(rows)), plot, title)
    drawn(plot)
