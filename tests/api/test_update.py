"""`tttab update`: new rows move the weights where old and new held-out rows agree, and only then."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

import tttab
from tests.support.small_models import small_model
from tttab.api.update import UpdateRequest, _rule_and_schedule, next_version, update_trial
from tttab.bundle import Bundle, load_bundle, save_bundle
from tttab.bundle.manifest import read_manifest
from tttab.cli import run
from tttab.data import Origin, schema_of, table_from_frame
from tttab.data.reading import RawFrame
from tttab.errors import DataError, RequestError
from tttab.testing import ToySession

FAST = {"steps": 20, "lr": 0.05}


def people(rows, seed, flip=False):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"age": rng.normal(40, 9, rows), "job": rng.choice(["clerk", "cook"], rows)})
    old = (frame["age"] > 40) != flip
    return frame.assign(kind=np.where(old, "old", "young"))


def bundle_of(session, held=60):
    table = table_from_frame(people(40 + held, 0), Origin("people", "file"))
    record = {"adaptation": {"rule": "full", "schedule": {"steps": 3, "lr": "much"}}, "metrics": {}}
    rest = (table.x.iloc[40:], table.y[40:]) if held else None
    return Bundle(session, table.x.iloc[:40], table.y[:40], schema_of(table), record, held=rest)


def weights_of(session):
    return torch.cat([weight.flatten() for weight in session.parameters("all")]).clone()


def test_rows_of_the_same_kind_make_a_new_version_that_keeps_its_judges():
    old = bundle_of(ToySession())
    before = weights_of(old.session)
    found = tttab.update(old, people(100, 1), **FAST)
    assert found.accepted and found.judged[1].loss < found.judged[0].loss
    assert found.judged[0].rows == 80 and len(found.bundle.held[1]) == 80
    assert {name: part["rows"] for name, part in found.metrics.items()} == {
        "new_held_out": 20, "old_held_out": 60,
    }  # fmt: skip
    assert torch.equal(weights_of(old.session), before) and not torch.equal(
        weights_of(found.bundle.session), before
    )
    about = found.bundle.record
    assert about["adaptation"]["schedule"]["steps"] == 20 and about["updates"][0]["rows"] == 100
    assert about["updates"][0]["before"]["adaptation"] == old.record["adaptation"]
    assert tttab.update(found.bundle, people(100, 2), **FAST).judged[0].rows == 100


def test_what_new_rows_like_and_old_ones_do_not_is_refused():
    contrary = people(100, 1, flip=True)
    alone = tttab.update(bundle_of(ToySession(), held=0), contrary, **FAST)
    assert alone.accepted and "the bundle has no held-out rows" in alone.warnings[0]
    old = bundle_of(ToySession(), held=400)
    found = tttab.update(old, contrary, **FAST)
    assert not found.accepted and found.bundle is old and found.adapted.step > 0
    assert "The old weights are kept: the new ones had a held-out loss of" in found.verdict


def test_rows_that_stand_in_the_bundle_do_not_judge_themselves():
    old = bundle_of(ToySession())
    known = people(100, 0)
    found = tttab.update(old, pd.concat([known, people(50, 1)]), **FAST)
    assert found.bundle.record["updates"][0]["rows"] == 50
    assert any("100 rows are left out: the bundle has them already" in remark for remark in found.warnings)
    with pytest.raises(DataError, match="100 of 100 new rows are already in the bundle"):
        tttab.update(old, known)


def test_where_rows_are_alike_by_nature_none_is_left_out():
    def of_levels(rows):
        return rows.assign(age=(rows["age"] > 40).astype(float))

    table = table_from_frame(of_levels(people(60, 0)), Origin("people", "file"))
    old = Bundle(ToySession(), table.x, table.y, schema_of(table), {"adaptation": {"rule": "full"}})
    assert update_trial(old, RawFrame(of_levels(people(50, 1))), UpdateRequest()).split.k == 50


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (lambda rows: rows.drop(columns="kind"), {}, DataError, "lack the target 'kind'"),
        (lambda rows: rows.assign(kind="dead"), {}, DataError, "'dead' is none of the table's classes"),
        (lambda rows: rows.head(9), {}, DataError, "9 new rows are too few"),
        (lambda rows: rows, {"rule": "none"}, RequestError, "trains nothing"),
        (lambda rows: rows, {"n": 3}, RequestError, "no option 'n'"),
        (lambda rows: rows, {"lr": -1.0}, RequestError, "learning rate"),
    ],
)
def test_rows_and_options_that_do_not_fit(change, options, error, message):
    with pytest.raises(error, match=message):
        tttab.update(bundle_of(ToySession()), change(people(20, 1)), **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("update") / "people"
    save_bundle(folder, bundle_of(small_model(members=1)))
    return folder


def test_the_command_writes_beside_the_old_version(saved, tmp_path, capfd):
    people(60, 1).to_csv(tmp_path / "new.csv", index=False)
    before = read_manifest(saved)
    words = ["update", str(saved), str(tmp_path / "new.csv"), "--steps", "4", "--device", "cpu"]
    assert run([*words, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["accepted"] and document["out"] == f"{saved}-2"
    assert read_manifest(saved) == before and next_version(saved).name == "people-3"
    new = load_bundle(f"{saved}-2", device="cpu")
    assert document["manifest"]["held"] == {"rows": 72} and len(new.held[1]) == 72
    assert new.record["metrics"]["old_held_out"]["rows"] == 60
    assert run([*words, "--out", str(saved)]) == 2
    assert f"--out {saved}-3" in capfd.readouterr().err


def test_an_update_that_is_refused_or_cannot_be_leaves_nothing(saved, tmp_path, capfd, monkeypatch):
    people(60, 1).to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "out"
    words = ["update", str(saved), str(tmp_path / "new.csv"), "--steps", "2", "--device", "cpu"]
    with monkeypatch.context() as patch:
        patch.setattr("tttab.training.selection.Selector._prefers", lambda *_: False)
        assert run([*words, "--out", str(out)]) == 0
    captured = capfd.readouterr()
    assert "The old weights are kept" in captured.err and "Nothing was written." in captured.err
    assert captured.out.startswith("measured on\trows\tmetric")
    with monkeypatch.context() as patch:
        patch.setattr("tttab.bundle.load_bundle", lambda *_, **__: pytest.fail("opened too early"))
        people(60, 1).drop(columns="age").to_csv(tmp_path / "bad.csv", index=False)
        assert run(["update", str(saved), str(tmp_path / "bad.csv"), "--out", str(out)]) == 2
        assert "lack 1 of 2 columns: age" in capfd.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("tttab.training.loop.Adaptation.gradient", interrupted)
        assert run([*words, "--out", str(out)]) == 130
    assert not out.exists()


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("found", "asked", "rates"),
    [
        ([0.001, 0.003], {}, (0.001, 0.003)),
        ([0.001, 0.003], {"lr": 0.05}, ()),
        (["0.001"], {}, ()),
        ("0.001", {}, ()),
    ],
)
def test_an_update_races_as_the_bundle_was_trained_unless_a_rate_is_asked_for(found, asked, rates):
    record = {"adaptation": {"rule": "full", "schedule": {"optimizer": "race", "steps": 9, "rates": found}}}
    rule, schedule = _rule_and_schedule(record, UpdateRequest(**asked))
    assert (rule, schedule.optimizer, schedule.steps, schedule.rates) == ("full", "race", 9, rates)
