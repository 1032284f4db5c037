"""What the commands do, for Python: `tttab.run`, `tttab.adapt`, `tttab.advise`.

The commands call the same functions.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import tttab
from tttab.api.hints import check_options, in_python_words
from tttab.blend.blending import Blend, BlendedPredictor
from tttab.bundle import Bundle, bundle_folder, bundle_record, room_for, save_bundle
from tttab.bundle.manifest import versions
from tttab.bundle.record import threshold_record
from tttab.core import Table
from tttab.data.schema import schema_of
from tttab.evaluation import advice
from tttab.evaluation.arms import blend_of, run_arm
from tttab.evaluation.caveats import caveats, early_stop, refusal, user_warnings
from tttab.evaluation.loggers import logging_to
from tttab.evaluation.outcome import Event, Outcome, Progress
from tttab.evaluation.result import BLEND, ICL, ICL_ALL, TTT, ArmResult, RunResult, threshold_words
from tttab.evaluation.setup import TrialRequest, draw_rows, open_trial
from tttab.evaluation.trial import Trial
from tttab.system.files import home_path, plain
from tttab.system.resources import peak_resident_bytes
from tttab.training.result import Adapted

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tttab.contracts import Predictor
    from tttab.evaluation.advice import Advice
    from tttab.system.claim import Claim
    from tttab.training.loop import Adaptation
    from tttab.training.result import Step

RUN_ARMS = (ICL, TTT, ICL_ALL, "gbt", "logistic")
"""What `tttab run` compares, in this order."""
Dataset = str | int | os.PathLike[str] | Table
"""An OpenML id, a known name, a path, or a table in memory."""
_PARAMETERS: dict[str, str] = {"column": "columns"}


def run(dataset: Dataset = "31", *, out: str | os.PathLike[str] | None = None, **options: Any) -> RunResult:
    """Adapt a model to one table and compare it with its rivals, as `tttab run` does.

    Args:
        dataset: an OpenML id, a known name, a path, or a `Table` of `tttab.load_table`.
        out: a folder that keeps the adapted model and the results; None: nothing is written.
        options: the fields of `tttab.evaluation.setup.TrialRequest`: n, k, target, columns, model, …

    Raises:
        TttabError: an option makes no sense, or the table or the model is not available.
    """
    with in_python_words(_PARAMETERS), output_folder(out) as claim, collected() as caught:
        request = _request(dataset, options)
        trial = open_trial(request, *draw_rows(request))
        check_run(trial, claim)
        with logged(trial, _plain_request(request)):
            events = run_arms(trial, arms_of(request.blend))
            outcomes = [event for event in events if isinstance(event, Outcome)]
        result = run_result(_plain_request(request), trial, outcomes, caught)
        if claim is not None:
            save_run(claim, result)
    return result


def adapt(
    dataset: Dataset,
    *,
    out: str | os.PathLike[str] | None = None,
    test_size: int = 0,
    **options: Any,
) -> AdaptResult:
    """Adapt a model to a table, as `tttab adapt` does.

    Args:
        dataset: as for `run`.
        out: the bundle's folder; None: nothing is written.
        test_size: test rows to set aside; 0: use every row for context and training.
        options: as for `run`.

    Raises:
        TttabError: as `run`.
    """
    with in_python_words(_PARAMETERS), output_folder(out) as claim, collected() as caught:
        request = _request(dataset, options | {"test_size": test_size or None})
        trial = open_trial(request, *draw_rows(request, keep_test=test_size > 0))
        if claim is not None:
            claim.check_room(room_for(trial.model))
        adaptation = trial.adaptation()
        with logged(trial, _plain_request(request)):
            for _ in steps_of(trial, adaptation):
                pass
            result = adapt_result(trial, adaptation.result, caught, request.blend, request.threshold)
        if claim is not None:
            save_bundle(claim, result.bundle)
    return result


def advise(dataset: Dataset, **options: Any) -> Advice:
    """Say before any training what the model could still learn from a table, as `tttab advise` does.

    Args:
        dataset: as for `run`.
        options: as for `run`.

    Raises:
        TttabError: as `run`; the target is a number, or there are too few rows beside the context.
    """
    with in_python_words(_PARAMETERS), collected():
        request = _request(dataset, options)
        return advice.advise(open_trial(request, *draw_rows(request, keep_test=False)))


def output_folder(out: str | os.PathLike[str] | None) -> AbstractContextManager[Claim | None]:
    """Hold the folder `out` until a bundle is saved in it; None: nothing is written."""
    return nullcontext() if out is None else bundle_folder(home_path(out))


def arms_of(blend: str | None) -> tuple[str, ...]:
    """Return the arms that `tttab run` compares, in order; `blend` adds the mixture with trees."""
    if blend is None:
        return RUN_ARMS
    place = RUN_ARMS.index(TTT) + 1
    return (*RUN_ARMS[:place], BLEND, *RUN_ARMS[place:])


def run_arms(trial: Trial, arms: Sequence[str] = RUN_ARMS) -> Iterator[Event | Outcome]:
    """Yield the progress and the outcome of each arm, one after the other."""
    for arm in arms:
        for event in run_arm(trial, arm):
            if isinstance(event, Progress):
                trial.logger.step(arm, event.step)
            elif isinstance(event, Outcome):
                trial.logger.figures(arm, event.row.metrics)
            yield event


def steps_of(trial: Trial, adaptation: Adaptation) -> Iterator[Step]:
    """Yield the training steps of an adaptation and log them."""
    for step in adaptation:
        trial.logger.step(TTT, step)
        yield step


@contextmanager
def logged(trial: Trial, request: Mapping[str, Any]) -> Generator[None]:
    """Log the steps and figures of a trial to the service that `request["log"]` names."""
    with logging_to(request.get("log"), request) as trial.logger:
        yield


def check_run(trial: Trial, claim: Claim | None) -> None:
    """Check before the training what would otherwise fail after it.

    Raises:
        ModelError: all n + k rows are more than the model reads.
        OSError: the disk has no room.
    """
    rows = trial.split.n + trial.split.k
    trial.model.check_fits(len(trial.table.classes), trial.table.x.shape[1], rows)
    if claim is not None:
        claim.check_room(room_for(trial.model))


def run_result(
    request: Mapping[str, Any],
    trial: Trial,
    outcomes: Sequence[Outcome],
    caught: Sequence[warnings.WarningMessage],
) -> RunResult:
    """Return what a comparison found, with the adapted model as a bundle.

    Args:
        request: the options by name, plain data.
        trial: what was compared on.
        outcomes: one per arm.
        caught: the warnings that were raised on the way.
    """
    ended = [remark for outcome in outcomes for remark in early_stop(outcome.adapted)]
    arms = tuple(map(ArmResult.of, outcomes))
    bundle = _bundle_of_run(trial, outcomes)
    _choose_threshold(bundle, trial, request.get("threshold"))
    return RunResult(
        table=trial.table,
        split=trial.split,
        model=trial.model.info,
        device=str(trial.model.device),
        request=request,
        arms=arms,
        warnings=tuple(dict.fromkeys([*caveats(trial), *user_warnings(caught), *ended])),
        versions={"tttab": tttab.__version__, **versions(trial.model.package)},
        peak_rss_mb=round(peak_resident_bytes() / 1024**2, 1),
        bundle=bundle,
    )


def save_run(claim: Claim, result: RunResult) -> None:
    """Write the adapted model with its context as a bundle, beside it the predictions and the JSON."""
    assert result.bundle is not None, "one of RUN_ARMS adapts a model"
    text = json.dumps(plain(result.to_dict()), indent=2, ensure_ascii=False)
    predictions = result.predictions()
    attachments = {
        "result.json": lambda path: path.write_text(text + "\n", encoding="utf-8"),
        "predictions.csv": lambda path: predictions.to_csv(path, index=False),
    }
    save_bundle(claim, result.bundle, attachments)


@dataclass(frozen=True)
class AdaptResult:
    """A model adapted to a table."""

    bundle: Bundle = field(repr=False)
    """The model with its context: it predicts and can be saved."""
    adapted: Adapted = field(repr=False)
    warnings: tuple[str, ...] = ()
    """What to know before believing the figures, a sentence each."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Figures of the pretrained and the adapted model, by the rows they were measured on."""
        return self.bundle.record["metrics"]

    @property
    def verdict(self) -> str:
        """What training did, in one sentence."""
        adaptation = self.bundle.record["adaptation"]
        return f"{self._trained(adaptation)}{self._mixed}{threshold_words(self.bundle)}"

    @property
    def _mixed(self) -> str:
        blend = self.bundle.blend
        return "" if blend is None else f" Trees on the same rows make {blend.weight:.0%} of each prediction."

    def _trained(self, adaptation: Mapping[str, Any]) -> str:
        if adaptation["accepted"] is None:
            why, rows = adaptation["stopped"] or "the rule `none` trains nothing", len(self.bundle.y)
            return f"Nothing was trained: {why}. The bundle is plain in-context learning with {rows:,} rows."
        if not adaptation["accepted"]:
            why = refusal(adaptation["stopped"], adaptation["vetoed"]) or "no step lowered the held-out loss"
            return f"The pretrained weights are kept: {why} ({adaptation['seconds']:.1f} s)."
        loss, step = adaptation["held_out_loss"], adaptation["chosen_step"]
        among = f"of {adaptation['steps']}"
        if adaptation["schedule"].get("rates"):
            taught = " on softened targets" if adaptation["softened"] else ""
            among = f"at a rate of {adaptation['rate']:g}{taught}, in a race of {adaptation['steps']} steps,"
        did = f"lowered the held-out loss from {loss['before']:.4f} to {loss['after']:.4f}"
        if metric := adaptation.get("held_out_metric"):
            did = f"took the held-out {metric['name']} from {metric['before']:.4f} to {metric['after']:.4f}"
        return f"Step {step} {among} {did} in {adaptation['seconds']:.1f} s."

    def __repr__(self) -> str:
        """Return the verdict."""
        return self.verdict


def adapt_result(
    trial: Trial,
    adapted: Adapted,
    caught: Sequence[warnings.WarningMessage],
    blend: str | None = None,
    threshold: str | None = None,
) -> AdaptResult:
    """Return the bundle, measured on the held-out part of the queries and on test rows if there are any.

    Args:
        trial: the rows and the pretrained model.
        adapted: what training gave.
        caught: the warnings that were raised on the way.
        blend: `trees` mixes the predictions with those of boosted trees.
        threshold: what a decision threshold is chosen by; None: none is.
    """
    server: Predictor = adapted.session.serve(trial.context)
    mixed = blend_of(trial, server) if blend else None
    server = server if mixed is None else BlendedPredictor(server, mixed)
    samples = {"held_out": (*held_rows(trial), _held_weights(trial))}
    if len(trial.split.test):
        samples["test"] = (*trial.rows("test"), trial.weights("test"))
    pretrained = trial.model.serve(trial.context)
    metrics = {name: _before_and_after(pretrained, server, *rows) for name, rows in samples.items()}
    for name, measured in metrics.items():
        trial.logger.figures(name, measured["after"])
    bundle = _bundle(trial, adapted, metrics, mixed)
    _choose_threshold(bundle, trial, threshold)
    remarks = [*caveats(trial), *user_warnings(caught), *early_stop(adapted)]
    return AdaptResult(bundle, adapted, tuple(dict.fromkeys(remarks)))


def held_rows(trial: Trial) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the part of the queries that chooses the step."""
    (x, y), held = trial.rows("queries"), trial.held
    return x.iloc[held], y[held]


@contextmanager
def collected() -> Generator[list[warnings.WarningMessage]]:
    """Collect the warnings that are raised inside instead of showing them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def _request(dataset: Dataset, options: Mapping[str, Any]) -> TrialRequest:
    check_options(options, TrialRequest)
    if isinstance(dataset, str | os.PathLike):
        dataset = os.path.expanduser(dataset)
    return TrialRequest(dataset=dataset, **options)


def _plain_request(request: TrialRequest) -> dict[str, Any]:
    name = request.dataset.name if isinstance(request.dataset, Table) else request.dataset
    rest = {item.name: getattr(request, item.name) for item in fields(request) if item.name != "dataset"}
    return {"dataset": name, **plain(rest)}


def _bundle_of_run(trial: Trial, outcomes: Sequence[Outcome]) -> Bundle | None:
    adapted = next((outcome.adapted for outcome in outcomes if outcome.adapted is not None), None)
    if adapted is None:
        return None
    by_arm = {outcome.row.arm: dict(outcome.row.metrics) for outcome in outcomes}
    after = by_arm.get(BLEND, by_arm.get(TTT))
    figures = {"rows": len(trial.split.test), "before": by_arm.get(ICL), "after": after}
    blend = next((outcome.blend for outcome in outcomes if outcome.blend is not None), None)
    return _bundle(trial, adapted, {"test": figures}, blend)


def _bundle(trial: Trial, adapted: Adapted, metrics: Mapping[str, Any], blend: Blend | None) -> Bundle:
    record = bundle_record(
        trial.split, adapted, trial.rule, trial.schedule, trial.seed, table=trial.table, metrics=metrics
    )
    held = held_rows(trial) if trial.split.k > 1 else None
    return Bundle(adapted.session, *trial.rows("context"), schema_of(trial.table), record, (), blend, held)


def _choose_threshold(bundle: Bundle | None, trial: Trial, metric: str | None) -> None:
    """Give a bundle the decision threshold that `metric` chooses on held-out rows; None: none."""
    if bundle is not None and metric is not None:
        rows = *held_rows(trial), _held_weights(trial)
        bundle.record["threshold"] = threshold_record(metric, bundle.server, *rows)


def _held_weights(trial: Trial) -> np.ndarray | None:
    counts = trial.weights("queries")
    return None if counts is None else counts[trial.held]


def _before_and_after(
    pretrained: Predictor, adapted: Predictor, x: pd.DataFrame, y: np.ndarray, weights: np.ndarray | None
) -> dict[str, Any]:
    before, after = (server.metrics(x, y, server.predict(x), weights) for server in (pretrained, adapted))
    return {"rows": len(y), "before": before, "after": after}
