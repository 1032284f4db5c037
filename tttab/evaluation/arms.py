"""The arms of a comparison: what is predicted with what, on one trial (table, split, model).

Arms of one trial share the split, the opened model and the prepared context. Each arm is one function and one
line in `ARMS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from tttab.blend.blending import Blend, BlendedPredictor, check_blend, fit_blend
from tttab.contracts import Context, Predictor, Session, Tuning
from tttab.core import Row
from tttab.data.context_selection import choose_context
from tttab.errors import RequestError
from tttab.evaluation.outcome import Event, Outcome, Planned, Progress
from tttab.evaluation.rivals import (
    Fit,
    RivalData,
    fit_distilled,
    fit_finetuned,
    fit_finetuned_short,
    fit_gbt,
    fit_lightgbm,
    fit_logistic,
    fit_medoids,
    fit_redrawn,
)
from tttab.evaluation.timing import latency
from tttab.evaluation.trial import Trial
from tttab.rules import get_rule
from tttab.training.config import Schedule
from tttab.training.recipes import schedule_of
from tttab.training.result import Adapted

PROMPT_ROWS = 10
Run = Callable[[Trial, str], Iterator[Event | Outcome]]


@dataclass(frozen=True)
class Arm:
    """How an arm runs and what sets it apart."""

    run: Run
    description: str
    model: bool = True
    """Whether it reads the foundation model."""
    rule: str | None = None
    """The rule it trains with: "" is the trial's own; None: nothing is trained."""
    recipe: str | None = None
    """The recipe it trains by, if not the trial's schedule."""
    split: str | None = None
    """The contexts during training, if not the schedule's own."""
    reads_all: bool = False
    """Predict from all n + k rows instead of n."""
    choice: str | None = None
    """How the n context rows are chosen, if not as in the split."""
    queries: bool = True
    """Whether the k query rows change its numbers."""
    own_training: bool = False
    """Whether it trains in its own way, not by the schedule."""
    tuning: Tuning | None = None
    """What trains instead of weights, which stay as they are."""
    extra_rows: int = 0
    """Rows that it reads beside the context when it predicts."""
    rate: float = 1.0
    """Of what is tuned, as a multiple of the schedule's learning rate."""
    opt_in: bool = False
    """Whether it runs only if it is named, because it takes long or answers a special question."""
    check: Callable[[], None] | None = None
    """Raises if a package it needs is not installed."""


@lru_cache  # a plan asks it of every cell
def _settings(schedule: Schedule) -> dict[str, Any]:
    return schedule.to_dict()


def run_icl(trial: Trial, arm: str) -> Iterator[Outcome]:
    """Plain in-context learning with n context rows, as the split has them or chosen by the arm."""
    how = ARMS[arm].choice
    if how is None:
        context = trial.context
    else:
        table, classes = trial.table, len(trial.table.classes)
        chosen = choose_context(trial.split, how, table.x, table.y, classes=classes).context
        context = trial.model.context(table.x.iloc[chosen], table.y[chosen], classes)
    yield _serve(trial, arm, trial.model, context, k=0)


def run_icl_all(trial: Trial, arm: str) -> Iterator[Outcome]:
    """Plain in-context learning with all n + k labelled rows: the honest rival of the same budget."""
    yield _serve(trial, arm, trial.model, trial.whole_context, k=0)


def run_ttt(trial: Trial, arm: str) -> Iterator[Event | Outcome]:
    """Train on the k rows as the arm says; predict from the n context rows, or from all n + k."""
    adapted = yield from _train(trial, arm)
    context = trial.whole_context if ARMS[arm].reads_all else adapted.context
    yield _serve(trial, arm, adapted.session, context, k=trial.split.k, adapted=adapted)


def run_blend(trial: Trial, arm: str) -> Iterator[Event | Outcome]:
    """Test-time training, its predictions mixed with those of boosted trees on the same n + k rows."""
    adapted = yield from _train(trial, arm)
    yield _serve(trial, arm, adapted.session, adapted.context, k=trial.split.k, adapted=adapted, blended=True)


def _train(trial: Trial, arm: str) -> Generator[Event, None, Adapted]:
    """Train as the arm says, or take what another arm has trained the same way."""
    spec = ARMS[arm]
    key = (spec.rule, spec.split, spec.tuning, spec.recipe)
    if key not in trial.trained:
        rule, schedule, session = get_rule(spec.rule or trial.rule), schedule_of_arm(trial, arm), trial.model
        if spec.split:
            schedule = replace(schedule, split=spec.split)
        if spec.tuning:
            session, rule = _tuned(trial, arm), replace(rule, rate=spec.rate)
            schedule = replace(schedule, split="fixed", init="pretrained", train_members=None)
        run = trial.adaptation(rule, schedule, session)
        if run.prepare() and run.result.estimate is not None:
            yield Planned(arm, run.result.estimate)
        for step in run:
            yield Progress(arm, step)
        trial.trained[key] = run.result
    return trial.trained[key]


def _tuned(trial: Trial, arm: str) -> Session:
    """Return the model in which what the arm tunes trains instead of weights."""
    spec = ARMS[arm]
    assert spec.tuning is not None, "the caller has checked"
    session = trial.model.tuned(spec.tuning, trial.context, spec.extra_rows)
    if session is None:
        message = f"{arm} is for classifiers of TabPFN v2, not for {trial.model.info.name}"
        raise RequestError(message, "--arms ttt@n+k,redraw@n+k")
    return session


def run_tuned(trial: Trial, arm: str) -> Iterator[Event | Outcome]:
    """Train what the arm names beside frozen weights; serve the model as it is where nothing helps.

    Raises:
        RequestError: the model has nothing of the kind.
    """
    adapted = yield from _train(trial, arm)
    if not adapted.accepted:
        adapted = replace(adapted, session=trial.model)
    outcome = _serve(trial, arm, adapted.session, adapted.context, k=trial.split.k, adapted=adapted)
    extra = ARMS[arm].extra_rows if adapted.accepted else 0
    yield replace(outcome, row=replace(outcome.row, n_context=outcome.row.n_context + extra))


def rival(fit: Fit) -> Run:
    """Return how an arm runs that fits a rival to all n + k rows and lets it serve."""

    def run(trial: Trial, arm: str) -> Iterator[Outcome]:
        (x, y), table = trial.rows("labelled"), trial.table
        session = trial.session if ARMS[arm].model else None
        data = RivalData(
            session, x, y, trial.split.n, table.task, len(table.classes), trial.seed, table.name,
            trial.schedule.max_seconds, trial.budget, trial.stop, trial.weights("labelled"),
        )  # fmt: skip
        start = time.perf_counter()
        fitted = fit(data)
        seconds = {"adapt": time.perf_counter() - start, "predict": 0.0}
        yield _predicted(trial, arm, fitted.server, fitted.n_context, fitted.k, seconds, fitted.adapted)

    return run


ARMS: dict[str, Arm] = {
    "icl@n": Arm(run_icl, "in-context learning, n rows", queries=False),
    "ttt@n+k": Arm(run_ttt, "test-time training on k rows, context of n", rule=""),
    "blend@n+k": Arm(
        run_blend,
        "the same, mixed with boosted trees on n + k rows",
        rule="",
        check=partial(check_blend, "trees"),
        opt_in=True,
    ),
    "ttt+@n+k": Arm(
        run_ttt,
        "test-time training by the recipe `thorough`, context of n",
        rule="",
        recipe="thorough",
        opt_in=True,
    ),
    "icl@n+k": Arm(run_icl_all, "in-context learning, all n + k rows"),
    "redraw@n": Arm(run_ttt, "fine-tuning with re-drawn contexts, context of n", rule="", split="redraw"),
    "redraw@n+k": Arm(
        run_ttt, "fine-tuning with re-drawn contexts, all n + k rows", rule="", split="redraw", reads_all=True
    ),
    "temperature@n": Arm(run_ttt, "softmax temperature fitted on k rows", rule="temperature"),
    "head@n": Arm(run_ttt, "output layer trained on k rows", rule="head"),
    "icl@n-random": Arm(run_icl, "n rows drawn from n + k without strata", choice="random"),
    "icl@n-kcenter": Arm(run_icl, "n of n + k rows that lie far apart", choice="kcenter"),
    "finetuned@n+k": Arm(
        rival(fit_finetuned),
        "the model's own fine-tuning on n + k rows",
        reads_all=True, own_training=True, opt_in=True,
    ),
    "finetuned@n": Arm(
        rival(fit_finetuned_short), "the same, context of n", own_training=True, opt_in=True
    ),
    "predictlm-ttt@n+k": Arm(
        rival(fit_redrawn), "15 steps on re-drawn splits, all n + k rows", own_training=True, opt_in=True
    ),
    "learned-context@n+k": Arm(
        run_tuned, "keys and values of n rows trained on k, weights frozen",
        rule="full", tuning="cache", rate=30.0, opt_in=True,
    ),
    "soft-prompt@n+k": Arm(
        run_tuned, f"{PROMPT_ROWS} more rows' keys and values trained on k, weights frozen",
        rule="full", tuning="prompt", extra_rows=PROMPT_ROWS, rate=30.0, opt_in=True,
    ),
    "retouch@n+k": Arm(
        run_tuned, "a gain and a shift per column trained on k rows, weights frozen",
        rule="full", tuning="inputs", rate=30.0, opt_in=True,
    ),
    "medoids@n": Arm(rival(fit_medoids), "n of n + k rows: medoids of the model's own vectors", opt_in=True),
    "distilled-gbt@n+k": Arm(
        rival(fit_distilled), "boosted trees taught by icl@n+k out of fold", own_training=True, opt_in=True
    ),
    "lightgbm@n+k": Arm(
        rival(fit_lightgbm), "LightGBM in eight folds, as in TabArena, on n + k rows",
        model=False, check=partial(check_blend, "trees"), opt_in=True,
    ),
    "gbt": Arm(rival(fit_gbt), "gradient-boosted trees on n + k rows", model=False),
    "logistic": Arm(rival(fit_logistic), "logistic regression on n + k rows", model=False),
}  # fmt: skip


def run_arm(trial: Trial, arm: str) -> Iterator[Event | Outcome]:
    """Yield the arm's progress and, last, its outcome.

    Raises:
        RequestError: there is no such arm.
    """
    if arm not in ARMS:
        raise RequestError(f"no arm is called {arm!r}", f"--arms {','.join(ARMS)}")
    yield from ARMS[arm].run(trial, arm)


def identity(trial: Trial, arm: str, steps: int | None = None) -> dict[str, Any]:
    """Return exactly what changes the arm's numbers.

    Args:
        trial: table, split, model and schedule.
        arm: one of `ARMS`.
        steps: the number that a time limit allowed; None: the schedule's.
    """
    spec = ARMS[arm]
    trained = spec.rule is not None
    parts = ("context", "queries", "test") if spec.queries else ("context", "test")
    schedule = schedule_of_arm(trial, arm)
    schedule = schedule if steps is None else replace(schedule, steps=steps)
    seconds = trial.schedule.max_seconds
    limit = {"seconds": seconds} if spec.own_training and seconds is not None else {}
    ensemble = {} if trial.members is None or not spec.model else {"members": trial.members}
    return {
        "table": trial.table.fingerprint,
        "split": {
            "seed": trial.split.seed,
            "n": trial.split.n,
            "k": trial.split.k if spec.queries else None,
            "rows": trial.split.digest_of(*parts),
        },
        "model": trial.model_sha256 if spec.model else None,
        "arm": arm,
        "rule": (spec.rule or trial.rule) if trained else None,
        "schedule": dict(_settings(schedule)) if trained else None,
        "seed": trial.seed if trained or spec.own_training or not spec.model else None,
        **ensemble,
        **limit,
    }


def schedule_of_arm(trial: Trial, arm: str) -> Schedule:
    """Return how far the arm may move: the trial's schedule, or that of the arm's recipe."""
    recipe, own = ARMS[arm].recipe, trial.schedule
    if recipe is None:
        return own
    kept = ("precision", "max_seconds", "held_out", "guard")
    return schedule_of(recipe, **{name: getattr(own, name) for name in kept})


def _serve(
    trial: Trial,
    arm: str,
    session: Session,
    context: Context,
    *,
    k: int,
    adapted: Adapted | None = None,
    blended: bool = False,
) -> Outcome:
    """Predict the test rows from `context` with a key-value cache, mixed with trees or not, and time it."""
    start = time.perf_counter()
    server: Predictor = session.serve(context)
    ready = time.perf_counter()
    blend, fitted = None, 0.0
    if blended:
        blend = blend_of(trial, server)
        server, fitted = BlendedPredictor(server, blend), time.perf_counter() - ready
    seconds = {"adapt": (adapted.seconds if adapted else 0.0) + fitted, "predict": ready - start}
    return replace(_predicted(trial, arm, server, context.n, k, seconds, adapted), blend=blend)


def _predicted(
    trial: Trial,
    arm: str,
    server: Predictor,
    n_context: int,
    k: int,
    seconds: dict[str, float],
    adapted: Adapted | None = None,
) -> Outcome:
    """Predict the test rows and time it; `seconds` are those of training and of building the cache."""
    x_test, y_test = trial.rows("test")
    start = time.perf_counter()
    p = server.predict(x_test)
    elapsed = time.perf_counter() - start
    opened = trial.open_seconds if ARMS[arm].model else 0.0
    seconds = {"open": opened, **seconds, "predict": seconds["predict"] + elapsed}
    row = Row(
        identity=identity(trial, arm, adapted.estimate.steps if adapted and adapted.estimate else None),
        arm=arm,
        n_context=n_context,
        k=k,
        metrics=server.metrics(x_test, y_test, p, trial.weights("test")),
        seconds=seconds,
        ms_per_1000_rows=latency(server.predict, x_test, trial.latency_calls, elapsed),
        cache_bytes=server.cache_bytes,
        steps=adapted.step if adapted else 0,
        accepted=adapted.accepted if adapted else None,
        test_rows=len(y_test),
    )
    return Outcome(row, p, adapted)


def blend_of(trial: Trial, server: Predictor) -> Blend:
    """Return the trees that a trial's labelled rows give, and how much they count beside the server.

    Raises:
        MissingExtra: lightgbm is not installed.
    """
    parts, count = (trial.rows("context"), trial.rows("queries")), trial.weights("labelled")
    return fit_blend(server, *parts, len(trial.table.classes), trial.held, trial.seed, count)
