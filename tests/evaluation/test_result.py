"""A result says what the rows say: as plain data, as a frame, and in one sentence."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tttab.core import Row
from tttab.data import Origin, table_from_frame
from tttab.data.splits import Split
from tttab.evaluation.outcome import Outcome
from tttab.evaluation.result import ArmResult, RunResult
from tttab.testing import INFO, ToySession
from tttab.training.loop import Adapted
from tttab.training.memory_plan import EXECUTION_MODES, MemoryPlan

P = np.array([[0.9, 0.1], [0.2, 0.8]])
TABLE = table_from_frame(pd.DataFrame({"a": range(8), "y": list("uvuvuvuv")}), Origin("made", "file"))
PLAIN = {"accuracy": 0.5, "roc_auc": 0.5, "log_loss": 0.6931, "brier": 0.5, "ece": 0.1}
BETTER = {"accuracy": 0.75, "roc_auc": 0.5, "log_loss": 0.5, "brier": 0.4, "ece": 0.1}


def row(arm, metrics=PLAIN, *, n=2, k=0, adapt=0.0, ms=10.0, **rest):
    seconds = {"open": 1.0, "adapt": adapt, "predict": 0.5}
    return Row({}, arm, n, k, metrics, seconds, ms, 64, **rest)


def adapted(**rest):
    plan = MemoryPlan(16, EXECUTION_MODES[0], 1000)
    context = ToySession().context(TABLE.x, TABLE.y, 2)
    return Adapted(
        ToySession(), context, 3, True, before=0.7, after=0.6, plan=plan, size=1e-3, softened=True, **rest
    )


def result(after=BETTER, *, training=None, accepted=True, table=TABLE, predictions=P, **changes):
    kept = adapted() if training is None else training
    rows = [
        Outcome(row("icl@n"), predictions),
        Outcome(row("ttt@n+k", after, k=4, adapt=2.0, steps=3, accepted=accepted), predictions, kept),
        Outcome(row("icl@n+k", n=6, ms=changes.pop("long_ms", 50.0)), predictions),
    ]
    split = Split(np.array([0, 1]), np.array([2, 3, 4, 5]), np.array([7, 6]), 0, notes=("k shrank",))
    found = RunResult(
        table, split, INFO, "cpu", {"n": 2}, tuple(map(ArmResult.of, rows)), ("beware",), {"torch": "2"}, 99.0
    )
    return replace(found, **changes)


def test_an_arm_is_the_row_and_what_training_did():
    one = ArmResult.of(
        Outcome(row("ttt@n+k", k=4, adapt=2.0, steps=3, accepted=True), P, adapted(vetoed=(1,)))
    )
    assert one.to_dict() == {
        "arm": "ttt@n+k",
        "n_context": 2,
        "k": 4,
        "metrics": PLAIN,
        "seconds": {"open": 1.0, "adapt": 2.0, "predict": 0.5},
        "ms_per_1000_rows": 10.0,
        "cache_bytes": 64,
        "steps": 3,
        "accepted": True,
        "held_out": {"before": 0.7, "after": 0.6},
        "chunk": 16,
        "precision": "fp32",
        "rate": 1e-3,
        "softened": True,
        "stopped": "",
        "vetoed": (1,),
    }
    assert one.predictions is P
    assert ArmResult.of(Outcome(row("ttt@n+k"), P, replace(adapted(), plan=None))).training.chunk is None
    assert "held_out" not in ArmResult.of(Outcome(row("icl@n"), P)).to_dict()


def test_the_document_holds_the_table_the_request_the_split_the_model_and_every_arm():
    document = result().to_dict()
    arms = document.pop("arms")
    assert [arm["arm"] for arm in arms] == ["icl@n", "ttt@n+k", "icl@n+k"]
    assert document == {
        "dataset": {
            "name": "made",
            "source": "file",
            "openml_id": None,
            "fingerprint": TABLE.fingerprint,
            "target": "y",
            "rows": 8,
            "features": 1,
            "classes": ["u", "v"],
            "notes": list(TABLE.notes),
        },
        "request": {"n": 2},
        "split": {"n": 2, "k": 4, "test": 2, "notes": ["k shrank"]},
        "model": {
            "name": "toy",
            "file": "toy.safetensors",
            "sha256": INFO.sha256,
            "provenance": INFO.provenance,
            "parameters": 0,
            "device": "cpu",
        },
        "peak_rss_mb": 99.0,
        "versions": {"torch": "2"},
        "warnings": ["beware"],
    }


def test_a_frame_has_one_line_per_arm():
    line = result().to_frame().loc["ttt@n+k"].to_dict()
    expected = {"n_context": 2, **BETTER, "adapt_seconds": 2.0, "ms_per_1000_rows": 10.0, "cache_bytes": 64}
    assert line == expected
    assert result().to_frame().index.name == "arm"
    with pytest.raises(KeyError, match="catboost"):
        result()["catboost"]


def test_predictions_stand_beside_the_number_and_the_label_of_their_row():
    frame = result().predictions()
    assert frame["row"].tolist() == [7, 6] and frame["label"].tolist() == ["v", "u"]
    assert list(frame.columns[2:4]) == ["icl@n:u", "icl@n:v"]
    assert frame["ttt@n+k:v"].tolist() == [0.1, 0.8]
    numbers = replace(TABLE, task="regression", classes=(), y=np.arange(8.0))
    frame = result(table=numbers, predictions=np.array([6.5, 5.5])).predictions()
    assert frame["label"].tolist() == [7.0, 6.0] and frame["icl@n+k"].tolist() == [6.5, 5.5]
    assert list(frame.columns) == ["row", "label", "icl@n", "ttt@n+k", "icl@n+k"]


def test_training_pays_for_itself_against_all_labelled_rows_as_context():
    """2 s of training over 40 ms saved per 1,000 predictions; nothing to save: never."""
    assert result().break_even_predictions == pytest.approx(50_000)
    assert "paid for itself after 50,000 predictions" in result().verdict
    assert math.isinf(result(long_ms=10.0).break_even_predictions)
    assert "no cheaper here than with all 6 rows" in result(long_ms=10.0).verdict


def test_the_verdict_tells_gain_and_harm_apart_with_their_figures():
    gain = result().verdict
    assert "With the same 2 context rows TTT lowered the log loss from 0.6931 to 0.5000" in gain
    assert "accuracy by +25.0 points" in gain and "it cost 2.0 s" in gain
    assert "RAISED the log loss from 0.6931 to 0.9000" in result(BETTER | {"log_loss": 0.9}).verdict
    assert "RAISED" in result(BETTER | {"log_loss": 0.6931}).verdict, "an equal loss is not lowered"


def test_the_verdict_on_a_number_speaks_of_likelihood_and_rmse():
    before, after = (
        {"rmse": 2.0, "mae": 1.0, "r2": 0.5, "nll": 1.5},
        {"rmse": 1.5, "mae": 1.0, "r2": 0.5, "nll": 1.2},
    )
    found = result()
    arms = tuple(replace(arm, metrics=after if arm.arm == "ttt@n+k" else before) for arm in found.arms)
    verdict = replace(found, arms=arms).verdict
    assert (
        "lowered the negative log likelihood from 1.5000 to 1.2000 and moved the RMSE by -25.0 %" in verdict
    )


def test_the_verdict_says_why_nothing_was_kept():
    refused = result(accepted=False).verdict
    assert (
        "kept the pretrained weights: no step lowered the loss on the held-out part of the 4 rows" in refused
    )
    assert "(loss 0.7000), and checking took 2.0 s" in refused
    vetoed = result(accepted=False, training=adapted(vetoed=(1, 2))).verdict
    assert "2 steps had a lower held-out loss but were worse calibrated" in vetoed
    stopped = result(accepted=False, training=adapted(stopped="it was late")).verdict
    assert "training stopped because it was late" in stopped


def test_the_verdict_says_why_nothing_was_trained():
    nothing = Adapted(ToySession(), adapted().context, 0, None)
    assert "the rule `none` trains nothing" in result(accepted=None, training=nothing).verdict
    said = result(accepted=None, training=replace(nothing, stopped="all targets are equal")).verdict
    assert said.startswith("Nothing was trained: all targets are equal.") and "2 rows" in said


def test_a_result_reads_as_its_head_its_frame_and_its_verdict():
    found = result(table=replace(TABLE, name="<b>made</b>"))
    assert repr(found) == f"<b>made</b>: 2 test rows\n{found.to_frame().to_string()}\n{found.verdict}"
    page = found._repr_html_()
    assert page.startswith("<p>&lt;b&gt;made&lt;/b&gt;: 2 test rows</p><table")
    assert page.endswith(f"</table><p>{found.verdict}</p>") and "<b>" not in page
