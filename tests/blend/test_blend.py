"""Trees beside the model: what they read, how much they count, what a bundle keeps of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_classification

import tttab
from tests.support.manifests import forge
from tttab.bench import ALL_ARMS, BenchRequest
from tttab.blend.blending import Blend, BlendedPredictor, best_weight, check_blend, fit_blend
from tttab.blend.trees import Trees
from tttab.bundle import Bundle, load_bundle, save_bundle
from tttab.cli import run
from tttab.data import Origin, schema_of, table_from_frame
from tttab.data.levels import levels_of
from tttab.data.splits import hold_out
from tttab.errors import BundleError, MissingExtra, RequestError
from tttab.evaluation.arms import ARMS

LEVELS = ["low", "middle", "high"]


def rows(count=400, seed=0):
    """Return numbers with gaps and a category that decides about half of the rows."""
    rng = np.random.default_rng(seed)
    level = rng.integers(0, 3, count)
    number = rng.normal(size=count)
    y = np.where(level == 0, number > 0, level == 1).astype(int)
    number[rng.random(count) < 0.1] = np.nan
    x = pd.DataFrame({"number": number, "level": pd.Categorical.from_codes(level, LEVELS)})
    return x, y


class Constant:
    """A model that gives every row the same answer."""

    cache_bytes = 7

    def __init__(self, answer):
        self.answer = np.asarray(answer, dtype=float)

    def predict(self, x):
        return np.broadcast_to(self.answer, (len(x), *self.answer.shape)).copy()

    def predict_quantiles(self, x, quantiles):
        return self.predict(x)[:, None] + np.asarray(quantiles)[None, :] - 0.5


def test_trees_read_numbers_gaps_and_categories():
    x, y = rows()
    new, labels = rows(seed=1)
    p = Trees.fit(x, y, 2, seed=0).predict(new)
    assert p.shape == (400, 2) and np.allclose(p.sum(axis=1), 1)
    assert np.mean(p.argmax(axis=1) == labels) > 0.9


def test_equal_seeds_give_equal_trees():
    x, y = rows()
    one, other = (Trees.fit(x, y, 2, 3).to_arrays() for _ in range(2))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_category_that_came_later_counts_as_missing():
    x, y = rows()
    trees = Trees.fit(x, y, 2, 0)
    more = [*LEVELS, "unheard of"]
    late = x.head(5).assign(level=pd.Categorical(["unheard of"] * 5, categories=more))
    gone = x.head(5).assign(level=pd.Categorical([None] * 5, categories=LEVELS))
    assert np.array_equal(trees.predict(late), trees.predict(gone))
    known = x.head(5).assign(level=x["level"].head(5).cat.set_categories(more))
    assert np.array_equal(trees.predict(known), trees.predict(x.head(5)))


@pytest.mark.parametrize("classes", [0, 2, 4])
def test_trees_answer_as_lightgbm_does(classes, monkeypatch):
    """With gaps and categories at prediction time that training lacked, and the other way round."""
    import lightgbm

    kept, train = [], lightgbm.train
    monkeypatch.setattr(lightgbm, "train", lambda *given: kept.append(train(*given)) or kept[0])
    x, y = rows()
    x["whole"] = np.arange(len(x)) % 7.0
    y = (np.arange(len(y)) + 10 * y) % classes if classes else y + x["number"].fillna(0).to_numpy()
    trees = Trees.fit(x, y, classes, 0)
    new = x.assign(whole=np.where(np.arange(len(x)) % 3, x["whole"] - 3, np.nan))
    new.loc[::4, "level"] = None
    codes = new["level"].cat.codes.to_numpy(float)
    cells = np.stack([new["number"], np.where(codes < 0, np.nan, codes), new["whole"]], axis=1)
    answer = kept[0].predict(cells)
    own = trees.predict(new)
    assert np.allclose(own[:, 1] if classes == 2 else own, answer, rtol=1e-12, atol=1e-14)
    assert own.shape == ((len(x), classes) if classes else (len(x),))


@pytest.mark.parametrize("classes", [0, 2, 4])
def test_arrays_give_the_same_trees_again(classes):
    x, y = rows()
    y = (np.arange(len(y)) + 10 * y) % classes if classes else y
    trees = Trees.fit(x, y, classes, 0)
    again = Trees.from_arrays(trees.to_arrays(), classes, levels_of(x))
    assert np.array_equal(again.predict(x), trees.predict(x))


def test_few_rows_still_grow_a_tree():
    x, y = rows(30)
    p = Trees.fit(x, y, 2, 0).predict(x)
    assert len(np.unique(p)) > 2


def changed(arrays):
    """Yield arrays that no fit made."""
    for name in arrays:
        yield {other: array for other, array in arrays.items() if other != name}
        yield arrays | {name: arrays[name].astype(complex)}
    yield arrays | {"more": arrays["roots"]}
    for name, value in (
        ("roots", 10**6), ("roots", -1), ("left", 10**6), ("left", -2), ("right", 10**6), ("feature", 2),
        ("feature", -2), ("missing", 2), ("subset", 10**6), ("subset", -2), ("value", np.nan),
    ):  # fmt: skip
        array = arrays[name].copy()
        array[-1] = value
        yield arrays | {name: array}
    for name in ("left", "value", "subset", "threshold"):
        yield arrays | {name: arrays[name][:-1]}
    yield arrays | {"roots": arrays["roots"][:0]}
    yield arrays | {"roots": arrays["roots"][:, None]}
    yield arrays | {"subsets": arrays["subsets"][:, :-1]}
    yield arrays | {"depth": np.asarray(10**9)}
    yield arrays | {"depth": np.asarray(-1)}
    yield arrays | {"depth": np.asarray([1, 2])}


def test_trees_that_lead_nowhere_are_refused():
    x, y = rows()
    arrays = Trees.fit(x, y, 2, 0).to_arrays()
    for number, other in enumerate(changed(arrays)):
        with pytest.raises(BundleError, match="trees"):
            pytest.fail(f"{number}: {Trees.from_arrays(other, 2, levels_of(x)).depth}")


@pytest.mark.parametrize(("classes", "levels"), [(3, (0, 3)), (2, (3,)), (2, (0, 4)), (2, (0, 0))])
def test_trees_of_another_table_are_refused(classes, levels):
    x, y = rows()
    with pytest.raises(BundleError, match="trees"):
        Trees.from_arrays(Trees.fit(x, y, 2, 0).to_arrays(), classes, levels)


def test_the_weight_is_that_with_the_smallest_loss():
    y = np.array([0, 0, 0, 1])
    right = np.eye(2)[y] * 0.8 + 0.1
    wrong = 1 - right
    assert best_weight(right, wrong, y) == 0.0
    assert best_weight(wrong, right, y) == 1.0
    assert best_weight(right, right, y) == 0.0
    sure_in_turn = np.array([[0.9, 0.1], [0.5, 0.5], [0.9, 0.1], [0.5, 0.5]])
    other_turn = np.array([[0.5, 0.5], [0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    assert 0.0 < best_weight(sure_in_turn, other_turn, y) < 1.0


def test_the_weight_of_means_is_that_of_least_squares():
    y = np.linspace(-1, 1, 50)
    assert best_weight(y + 0.3, y - 0.1, y) == pytest.approx(0.75)


def held_of(y):
    return hold_out(y, 0.2, 0, classes=2)[1]


def test_a_row_counts_as_often_as_its_weight_says():
    """The model is good at one class, the trees at the other."""
    rng = np.random.default_rng(2)
    y, often = rng.integers(0, 2, 60), rng.integers(0, 4, 60)
    model, trees = np.where(y == 0, 0.9, 0.4), np.where(y == 0, 0.5, 0.8)
    model, trees = (np.where(y[:, None] == [0, 1], p[:, None], 1 - p[:, None]) for p in (model, trees))
    for first, second in ((model, trees), (model[:, 1], trees[:, 1])):
        repeated = [np.repeat(part, often, axis=0) for part in (first, second, y)]
        assert best_weight(first, second, y, often.astype(float)) == best_weight(*repeated)
        assert best_weight(first, second, y, y + 1e-6) == 1 > best_weight(first, second, y)


def test_rows_that_count_nothing_teach_the_trees_nothing():
    x, y = rows(300)
    wrong = np.arange(300) % 3 == 0
    labels, weights = np.where(wrong, 1 - y, y), np.where(wrong, 0.0, 1.0)
    context, queries = (x.head(50), labels[:50]), (x.tail(250), labels[50:])
    asked = Constant([0.5, 0.5]), context, queries, 2, held_of(labels[50:]), 0
    assert fit_blend(*asked, weights).weight > fit_blend(*asked).weight + 0.2
    sure = fit_blend(*asked, weights).trees.predict(x)[np.arange(300), y]
    assert sure.mean() > fit_blend(*asked).trees.predict(x)[np.arange(300), y].mean() + 0.1


def test_trees_are_weighed_on_rows_they_have_not_seen():
    """Labels without a pattern: trees that had seen the held-out rows would win against the truth."""
    x, _ = rows(300)
    y = np.random.default_rng(5).integers(0, 2, 300)
    context, queries = (x.head(50), y[:50]), (x.tail(250), y[50:])
    assert fit_blend(Constant([0.5, 0.5]), context, queries, 2, held_of(y[50:]), 0).weight <= 0.15
    x, y = rows(300)
    context, queries = (x.head(50), y[:50]), (x.tail(250), y[50:])
    assert fit_blend(Constant([0.5, 0.5]), context, queries, 2, held_of(y[50:]), 0).weight > 0.8


def test_a_mixture_lies_between_its_parts():
    x, y = rows()
    trees = Trees.fit(x, y, 2, 0)
    model = Constant([0.3, 0.7])
    mixed = BlendedPredictor(model, Blend(trees, 0.25))
    assert np.allclose(mixed.predict(x), 0.75 * model.predict(x) + 0.25 * trees.predict(x))
    assert mixed.cache_bytes == 7
    assert np.array_equal(BlendedPredictor(model, Blend(trees, 0.0)).predict(x), model.predict(x))
    assert mixed.metrics(x, y, mixed.predict(x))["log_loss"] < 0.7


def test_quantiles_move_with_the_mean():
    x, _ = rows()
    y = x["number"].fillna(0).to_numpy()
    trees = Trees.fit(x, y, 0, 0)
    mixed = BlendedPredictor(Constant(2.0), Blend(trees, 0.5))
    low, middle, high = mixed.predict_quantiles(x, [0.1, 0.5, 0.9]).T
    assert np.allclose(middle, mixed.predict(x)) and np.allclose(high - low, 0.8)
    assert mixed.metrics(x, y, mixed.predict(x)).keys() == {"rmse", "mae", "r2"}


def test_what_cannot_be_blended_with_is_told_before_any_work(monkeypatch):
    with pytest.raises(RequestError, match="forest") as caught:
        check_blend("forest")
    assert caught.value.hint == "--blend trees"
    monkeypatch.setattr("tttab.blend.blending.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="lightgbm"):
        check_blend("trees")
    check_blend(None)


def test_a_benchmark_mixes_where_it_is_asked_to_alone(monkeypatch):
    assert "blend@n+k" in ARMS and "blend@n+k" not in ALL_ARMS
    monkeypatch.setattr("tttab.blend.blending.find_spec", lambda name: None)
    BenchRequest(tables=("banana",)).check()
    with pytest.raises(MissingExtra):
        BenchRequest(tables=("banana",), arms=("blend@n+k",)).check()


@pytest.fixture(scope="module")
def bundle(tiny_model):
    x, y = rows(160)
    frame = x.assign(kind=np.array(["no", "yes"])[y])
    table = table_from_frame(frame, Origin("mixed", "file"))
    context, queries = (table.x.iloc[:60], table.y[:60]), (table.x.iloc[60:], table.y[60:])
    alone = Bundle(tiny_model.fork(), *context, schema_of(table))
    trees = fit_blend(alone.server, context, queries, 2, held_of(y[60:]), 0).trees
    return replace(alone, blend=Blend(trees, 0.4))


def test_a_bundle_predicts_the_mixture_before_and_after_it_is_written(bundle, tmp_path):
    raw = rows(20, seed=2)[0].astype({"level": object})
    x = bundle.schema.apply(raw)
    expected = 0.6 * bundle.session.serve(bundle.context).predict(x) + 0.4 * bundle.blend.trees.predict(x)
    assert np.allclose(bundle.predict(raw), expected)
    save_bundle(tmp_path, bundle)
    assert np.allclose(load_bundle(tmp_path, device="cpu").predict(raw), expected, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["blend"].update(weight=2),
        lambda manifest: manifest["blend"].update(weight=float("nan")),
        lambda manifest: manifest["blend"].update(weight=True),
        lambda manifest: manifest["blend"].clear(),
        lambda manifest: manifest.pop("blend"),
        lambda manifest: manifest["files"].pop("trees"),
    ],
)
def test_a_bundle_that_lies_about_its_trees_is_refused(bundle, tmp_path, change):
    save_bundle(tmp_path, bundle)
    forge(tmp_path, change)
    with pytest.raises(BundleError):
        load_bundle(tmp_path, device="cpu")


def test_changed_trees_are_refused_by_their_hash(bundle, tmp_path):
    save_bundle(tmp_path, bundle)
    (path,) = tmp_path.glob("trees-*")
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    with pytest.raises(BundleError, match="hash"):
        load_bundle(tmp_path, device="cpu")


def test_the_estimator_mixes_and_keeps_its_trees(tmp_path):
    x, y = make_classification(160, 4, n_informative=3, n_redundant=0, random_state=0)
    asked = {"recipe": "single", "steps": 2, "model": "tttab-tiny", "device": "cpu", "blend": "trees"}
    estimator = tttab.TTTClassifier(40, **asked).fit(x, y)
    blend = estimator.bundle_.blend
    assert blend is not None and blend.weight > 0
    p = estimator.predict_proba(x)
    estimator.save(tmp_path)
    again = tttab.TTTClassifier.load(tmp_path, device="cpu")
    assert again.blend == "trees" and np.allclose(again.predict_proba(x), p, atol=1e-6)
    few = tttab.TTTClassifier(200, **asked).fit(x, y)
    assert few.bundle_.blend is None


def test_run_and_adapt_tell_of_the_trees(tmp_path, capfd):
    x, y = rows(200)
    x.assign(kind=y).to_csv(tmp_path / "t.csv", index=False)
    small = ["--n", "40", "--k", "80", "--steps", "2", "--model", "tttab-tiny", "--device", "cpu"]
    out = tmp_path / "kept"
    small += ["--blend", "trees"]
    assert run(["run", "--dataset", str(tmp_path / "t.csv"), *small, "--out", str(out)]) == 0
    printed, said = capfd.readouterr()
    assert [line.split("\t")[0] for line in printed.splitlines()][2:4] == ["ttt@n+k", "blend@n+k"]
    assert "of boosted trees it has a log loss of" in said
    assert load_bundle(out, device="cpu").blend is not None
    assert run(["inspect", str(out)]) == 0
    assert "trees' share" in capfd.readouterr().out
    kept = tmp_path / "adapted"
    assert run(["adapt", str(tmp_path / "t.csv"), "--out", str(kept), *small]) == 0
    assert "Trees on the same rows make" in capfd.readouterr().err
    assert load_bundle(kept, device="cpu").blend is not None
