"""The arms of a comparison: what is predicted with what, on one trial (table, split, model).

Arms of one trial share the split, the opened model and the prepared context. Each arm is one
function and one line in `ARMS`. What does not belong here: many units (bench), printing (cli).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tttab.blend.blending import Blend, BlendedPredictor, check_kind, fit_blend
from tttab.contracts import Context, Objective, Predictor, Rule, Session, Tuning
from tttab.core import Row, Table
from tttab.data.context_selection import choose_context
from tttab.data.splits import Split
from tttab.errors import RequestError
from tttab.evaluation.loggers import RunLogger, Silent
from tttab.evaluation.outcome import Event, Outcome, Planned, Progress
from tttab.evaluation.rivals import (
    Fit,
    Given,
    fit_distilled,
    fit_finetuned,
    fit_finetuned_short,
    fit_gbt,
    fit_lightgbm,
    fit_logistic,
    fit_medoids,
    fit_redrawn,
)
from tttab.evaluation.teacher import teacher_of
from tttab.evaluation.timing import LATENCY_CALLS, latency
from tttab.rules import get_rule
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation
from tttab.training.memory_plan import DEFAULT_BUDGET
from tttab.training.recipes import schedule_of
from tttab.training.result import Adapted

if TYPE_CHECKING:
    import pandas as pd


PROMPT_ROWS = 10
Run = Callable[["Trial", str], Iterator[Event | Outcome]]


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
            "schedule": dict(_settings(schedule)) if trained else None,
            "seed": self.seed if trained or about.own_training or not about.model else None,
            **ensemble,
            **limit,
        }

    def schedule_of(self, arm: str) -> Schedule:
        """Return how far the arm may move: the trial's schedule, or that of the arm's recipe."""
        recipe, own = ARMS[arm].recipe, self.schedule
        if recipe is None:
            return own
        kept = ("precision", "max_seconds", "held_out")
        return schedule_of(recipe, **{name: getattr(own, name) for name in kept})

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

    def adaptation(
        self, rule: Rule | None = None, schedule: Schedule | None = None, session: Session | None = None
    ) -> Adaptation:
        """Return the training, by default with the trial's own rule, schedule and model, not yet begun."""
        model, schedule = session or self.model, schedule or self.schedule
        given = self.context, self.rows("queries"), schedule, self.seed
        return Adaptation(
            model, rule or get_rule(self.rule), *given, self.budget, teach=teacher_of(model, *given),
            objective=Objective(weights=self.weights("queries")), stop=self.stop, held=self.split.held,
        )  # fmt: skip

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

    run: Run
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
    """Whether it trains in its own way, not by the schedule."""
    tuning: Tuning | None = None
    """What trains instead of weights, which stay as they are."""
    extra_rows: int = 0
    """Rows beside the context that it serves with."""
    rate: float = 1.0
    """Of what is tuned, as a multiple of the schedule's learning rate."""
    named: bool = False
    """Whether it runs where it is named alone: most are, being dear."""
    check: Callable[[], None] | None = None
    """Raises where something is not installed."""


@lru_cache
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
    about = ARMS[arm]
    key = (about.rule, about.split, about.tuning, about.recipe)
    if key not in trial.trained:
        rule, schedule, session = get_rule(about.rule or trial.rule), trial.schedule_of(arm), trial.model
        if about.split:
            schedule = replace(schedule, split=about.split)
        if about.tuning:
            session, rule = _tuned(trial, arm), replace(rule, rate=about.rate)
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
    about = ARMS[arm]
    assert about.tuning is not None, "the caller has looked"
    session = trial.model.tuned(about.tuning, trial.context, about.extra_rows)
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
        given = Given(
            session, x, y, trial.split.n, table.task, len(table.classes), trial.seed, table.name,
            trial.schedule.max_seconds, trial.budget, trial.stop, trial.weights("labelled"),
        )  # fmt: skip
        start = time.perf_counter()
        fitted = fit(given)
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
        check=partial(check_kind, "trees"),
        named=True,
    ),
    "ttt+@n+k": Arm(
        run_ttt,
        "test-time training by the recipe `thorough`, context of n",
        rule="",
        recipe="thorough",
        named=True,
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
        reads_all=True, own_training=True, named=True,
    ),
    "finetuned@n": Arm(
        rival(fit_finetuned_short), "the same, context of n", own_training=True, named=True
    ),
    "predictlm-ttt@n+k": Arm(
        rival(fit_redrawn), "15 steps on re-drawn splits, all n + k rows", own_training=True, named=True
    ),
    "learned-context@n+k": Arm(
        run_tuned, "keys and values of n rows trained on k, weights frozen",
        rule="full", tuning="cache", rate=30.0, named=True,
    ),
    "soft-prompt@n+k": Arm(
        run_tuned, f"{PROMPT_ROWS} more rows' keys and values trained on k, weights frozen",
        rule="full", tuning="prompt", extra_rows=PROMPT_ROWS, rate=30.0, named=True,
    ),
    "retouch@n+k": Arm(
        run_tuned, "a gain and a shift per column trained on k rows, weights frozen",
        rule="full", tuning="inputs", rate=30.0, named=True,
    ),
    "medoids@n": Arm(rival(fit_medoids), "n of n + k rows: medoids of the model's own vectors", named=True),
    "distilled-gbt@n+k": Arm(
        rival(fit_distilled), "boosted trees taught by icl@n+k out of fold", own_training=True, named=True
    ),
    "lightgbm@n+k": Arm(
        rival(fit_lightgbm), "LightGBM in eight folds, as in TabArena, on n + k rows",
        model=False, check=partial(check_kind, "trees"), named=True,
    ),
    "gbt": Arm(rival(fit_gbt), "gradient-boosted trees on n + k rows", model=False),
    "logistic": Arm(rival(fit_logistic), "logistic regression on n + k rows", model=False),
}  # fmt: skip


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
    opened = trial.open_seconds if ARMS[arm].model else 0.0
    seconds = {"open": opened, **seconds, "predict": seconds["predict"] + asked}
    row = Row(
        identity=trial.identity(arm, adapted.estimate.steps if adapted and adapted.estimate else None),
        arm=arm,
        n_context=n_context,
        k=k,
        metrics=server.metrics(x_test, y_test, p, trial.weights("test")),
        seconds=seconds,
        ms_per_1000_rows=latency(server.predict, x_test, trial.latency_calls, asked),
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
