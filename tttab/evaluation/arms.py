"""The arms of a comparison: what is predicted with what, on one trial (table, split, model).

Arms of one trial share the split, the opened model and the prepared context. Each arm is one
function and one line in `ARMS`. What does not belong here: many units (bench), printing (cli).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tttab.blend.blending import Blend, BlendedPredictor, check_kind, fit_blend
from tttab.contracts import Context, Objective, Predictor, Rule, Session
from tttab.core import Row, Table
from tttab.data.context_selection import choose_context
from tttab.data.splits import Split
from tttab.errors import RequestError
from tttab.evaluation.baselines import baseline
from tttab.evaluation.events import Event, Outcome, Planned, Progress
from tttab.evaluation.loggers import RunLogger, Silent
from tttab.evaluation.teacher import teacher_of
from tttab.metrics import figures
from tttab.rules import get_rule
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation
from tttab.training.memory_plan import DEFAULT_BUDGET
from tttab.training.recipes import get_recipe, schedule_of
from tttab.training.result import Adapted

if TYPE_CHECKING:
    import pandas as pd

LATENCY_ROWS = 1000
LATENCY_CALLS = 3


@dataclass
class Trial:
    """One (table, split, model), with what its arms share."""

    table: Table
    split: Split
    session: Session | None
    """An opened model, or None where only arms without one are run, or none is run at all."""
    rule: str = "full"
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0
    """Names the training streams; the split carries its own seed."""
    budget: int = DEFAULT_BUDGET
    open_seconds: float = 0.0
    trained: dict[tuple[str | None, ...], Adapted] = field(default_factory=dict)
    """What arms have trained, so that two arms with the same training share it."""
    latency_calls: int = LATENCY_CALLS
    """Extra calls that measure latency; 0 reads it off the prediction of the test rows, at no cost."""
    members: int | None = None
    """Ensemble members that serve, where another number than the model's own was asked for."""
    stop: Callable[[], str] = str
    """Asked after every training step; a reason ends training, and the best weights so far are kept."""
    logger: RunLogger = field(default_factory=Silent)
    planned_model: str = ""
    """The SHA-256 of the model file, for identities alone: where no session has been opened yet."""

    def run(self, arm: str) -> Iterator[Event | Outcome]:
        """Yield the arm's progress and, last, its outcome.

        Raises:
            RequestError: there is no such arm.
        """
        if arm not in ARMS:
            raise RequestError(f"no arm is called {arm!r}", f"--arms {','.join(ARMS)}")
        yield from ARMS[arm].run(self, arm)

    def identity(self, arm: str, steps: int | None = None) -> dict[str, Any]:
        """Return exactly what changes the arm's numbers.

        Args:
            arm: one of `ARMS`.
            steps: as many as fitted into a time, where one was given.
        """
        about = ARMS[arm]
        trained = about.rule is not None
        parts = ("context", "queries", "test") if about.queries else ("context", "test")
        schedule = self.schedule_of(arm)
        schedule = schedule if steps is None else replace(schedule, steps=steps)
        seconds = self.schedule.max_seconds
        limit = {"seconds": seconds} if about.own_training and seconds is not None else {}
        ensemble = {} if self.members is None or not about.model else {"members": self.members}
        return {
            "table": self.table.fingerprint,
            "split": {
                "seed": self.split.seed,
                "n": self.split.n,
                "k": self.split.k if about.queries else None,
                "rows": self.split.digest_of(*parts),
            },
            "model": self.model_sha256 if about.model else None,
            "arm": arm,
            "rule": (about.rule or self.rule) if trained else None,
            "schedule": schedule.to_dict() if trained else None,
            "seed": self.seed if trained or about.own_training or not about.model else None,
            **ensemble,
            **limit,
        }

    def schedule_of(self, arm: str) -> Schedule:
        """Return how far the arm may move: the trial's schedule, or that of the arm's recipe."""
        recipe, own = ARMS[arm].recipe, self.schedule
        if recipe is None:
            return own
        kept = ("precision", "max_seconds", "held_out", "guard", "metric", "balanced")
        return schedule_of(recipe, **{name: getattr(own, name) for name in kept})

    def adaptation(self, rule: Rule | None = None, schedule: Schedule | None = None) -> Adaptation:
        """Return the training by a rule and a schedule, by default the trial's own, not yet begun."""
        schedule = schedule or self.schedule
        given = self.model, self.context, self.rows("queries"), schedule, self.seed
        asked, teach = Objective(weights=self.weights("queries")), teacher_of(*given)
        rule, held = rule or get_rule(self.rule), self.split.held
        return Adaptation(
            given[0], rule, *given[1:], self.budget, objective=asked, teach=teach, stop=self.stop, held=held
        )

    @property
    def model(self) -> Session:
        """The opened model.

        Raises:
            RequestError: the trial has none.
        """
        if self.session is None:
            raise RequestError("this trial has no model", "Trial(table, split, open_model())")
        return self.session

    @property
    def model_sha256(self) -> str:
        """The SHA-256 of the model file."""
        return self.session.info.sha256 if self.session is not None else self.planned_model

    def rows(self, part: str) -> tuple[pd.DataFrame, np.ndarray]:
        """Return x and y of a part of the split: `context`, `queries`, `test` or `labelled` (n + k)."""
        which = self._numbers(part)
        return self.table.x.iloc[which], self.table.y[which]

    def weights(self, part: str) -> np.ndarray | None:
        """Return how much each row of a part counts, shape (rows,); None: all alike."""
        return None if self.table.weights is None else self.table.weights[self._numbers(part)]

    def _numbers(self, part: str) -> np.ndarray:
        if part == "labelled":
            return np.concatenate([self.split.context, self.split.queries])
        return getattr(self.split, part)

    @cached_property
    def context(self) -> Context:
        """The n context rows, prepared."""
        return self.model.context(*self.rows("context"), len(self.table.classes))

    @cached_property
    def whole_context(self) -> Context:
        """All n + k labelled rows, prepared."""
        return self.model.context(*self.rows("labelled"), len(self.table.classes))


@dataclass(frozen=True)
class Arm:
    """How an arm runs and what sets it apart."""

    run: Callable[[Trial, str], Iterator[Event | Outcome]]
    about: str
    model: bool = True
    """Whether it reads the foundation model."""
    rule: str | None = None
    """What it trains; "" is the trial's own rule, None nothing."""
    recipe: str | None = None
    """What it trains by where that is not the trial's schedule."""
    split: str | None = None
    """The contexts training sees where they are not the schedule's own."""
    reads_all: bool = False
    """Predict from all n + k rows instead of n."""
    choice: str | None = None
    """How the n context rows are chosen where not as in the split."""
    queries: bool = True
    """Whether the k query rows change its numbers."""
    own_training: bool = False
    """Whether the model's own package trains; long, so only where it is asked for."""
    check: Callable[[], object] | None = None
    """Raises where something is not installed; an arm that has one runs where it is named, not by default."""


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
    about = ARMS[arm]
    key = (about.rule, about.split, about.recipe)
    if key not in trial.trained:
        schedule = trial.schedule_of(arm)
        schedule = replace(schedule, split=about.split) if about.split else schedule
        rule = get_rule(about.rule or trial.rule)
        run = trial.adaptation(rule, schedule)
        if run.prepare() and run.result.estimate is not None:
            yield Planned(arm, run.result.estimate)
        for step in run:
            yield Progress(arm, step)
        trial.trained[key] = run.result
    return trial.trained[key]


def run_finetuned(trial: Trial, arm: str) -> Iterator[Outcome]:
    """What the model's own package makes of all n + k rows by its own fine-tuning, with its own defaults.

    Raises:
        RequestError: it has none for this model and table.
    """
    x, y = trial.rows("labelled")
    model, limit = trial.model, trial.schedule.max_seconds
    start = time.perf_counter()
    server = model.finetuned(x, y, len(trial.table.classes), trial.seed, limit)
    if server is None:
        message = f"{model.package} has no fine-tuning of its own for {model.info.name} on {trial.table.name}"
        raise RequestError(message, "--arms ttt@n+k,redraw@n+k")
    seconds = {"adapt": time.perf_counter() - start, "predict": 0.0}
    yield _predicted(trial, arm, server, len(y), trial.split.k, seconds)


def run_estimator(trial: Trial, arm: str) -> Iterator[Outcome]:
    """A scikit-learn model on all n + k labelled rows."""
    x, y = trial.rows("labelled")
    model = baseline(arm, x, trial.table.task, trial.seed)
    start = time.perf_counter()
    weights = trial.weights("labelled")
    model.fit(x, y, **({} if weights is None else {f"{model.steps[-1][0]}__sample_weight": weights}))
    fitted = time.perf_counter() - start
    x_test, y_test = trial.rows("test")
    predict = model.predict_proba if trial.table.task == "classification" else model.predict
    start = time.perf_counter()
    p = predict(x_test)
    seconds = {"open": 0.0, "adapt": fitted, "predict": time.perf_counter() - start}
    row = Row(
        identity=trial.identity(arm),
        arm=arm,
        n_context=0,
        k=len(y),
        metrics=figures(y_test, p, trial.weights("test")),
        seconds=seconds,
        ms_per_1000_rows=_latency(predict, x_test, trial.latency_calls, seconds["predict"]),
        test_rows=len(y_test),
    )
    yield Outcome(row, p)


ARMS: dict[str, Arm] = {
    "icl@n": Arm(run_icl, "in-context learning, n rows", queries=False),
    "ttt@n+k": Arm(run_ttt, "test-time training on k rows, context of n", rule=""),
    "blend@n+k": Arm(
        run_blend,
        "the same, mixed with boosted trees on n + k rows",
        rule="",
        check=partial(check_kind, "trees"),
    ),
    "ttt+@n+k": Arm(
        run_ttt,
        "test-time training by the recipe `thorough`, context of n",
        rule="",
        recipe="thorough",
        check=partial(get_recipe, "thorough"),
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
        run_finetuned, "the model's own fine-tuning on n + k rows", reads_all=True, own_training=True
    ),
    "gbt": Arm(run_estimator, "gradient-boosted trees on n + k rows", model=False),
    "logistic": Arm(run_estimator, "logistic regression on n + k rows", model=False),
}


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
    """Predict the test rows and time it; `seconds`: what came before."""
    x_test, y_test = trial.rows("test")
    start = time.perf_counter()
    p = server.predict(x_test)
    asked = time.perf_counter() - start
    seconds = {"open": trial.open_seconds, **seconds, "predict": seconds["predict"] + asked}
    row = Row(
        identity=trial.identity(arm, adapted.estimate.steps if adapted and adapted.estimate else None),
        arm=arm,
        n_context=n_context,
        k=k,
        metrics=server.metrics(x_test, y_test, p, trial.weights("test")),
        seconds=seconds,
        ms_per_1000_rows=_latency(server.predict, x_test, trial.latency_calls, asked),
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
    parts, share = (trial.rows("context"), trial.rows("queries")), trial.schedule.held_out
    return fit_blend(server, *parts, len(trial.table.classes), share, trial.seed, trial.split.held)


def _latency(
    predict: Callable[[pd.DataFrame], np.ndarray], x: pd.DataFrame, calls: int, asked: float
) -> float:
    """Return milliseconds per 1,000 rows: the fastest of `calls` calls on 1,000 rows of `x`, repeated.

    Without a call it follows from `asked`, the seconds that predicting `x` has taken.
    """
    rows = x.iloc[np.resize(np.arange(len(x)), LATENCY_ROWS)].reset_index(drop=True)
    best = asked * LATENCY_ROWS / len(x) if calls == 0 else float("inf")
    for _ in range(calls):
        start = time.perf_counter()
        predict(rows)
        best = min(best, time.perf_counter() - start)
    return 1000 * best
