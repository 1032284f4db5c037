"""Boosted trees as a bundle can keep them: LightGBM grows them, flat arrays hold them, NumPy reads them.

scikit-learn's own trees (the rival `gbt`) can only be pickled, and LightGBM's reader of its own text ends the
process if a text points outside of a tree. Arrays can be checked, and prediction needs no LightGBM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from tttab.data.levels import coded, levels_of
from tttab.errors import BundleError, MissingExtra
from tttab.seeding import stream_seed

if TYPE_CHECKING:
    import pandas as pd

ROUNDS, DEEPEST = 100, 40
SETTINGS: dict[str, Any] = {
    "learning_rate": 0.1,
    "num_leaves": 31,
    "max_depth": DEEPEST,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
"""The defaults of scikit-learn's histogram trees, the rival `gbt`; the same numbers on every machine."""
LEAST_IN_LEAF = 20
OBJECTIVES = {0: "regression", 2: "binary"}
"""By number of classes; all others are `multiclass`."""
CELLS = 2**20
"""Rows times trees at a time, to bound the memory."""


@dataclass(frozen=True)
class Trees:
    """Fitted trees. They read frames of one schema: the same columns, categories in the same order.

    Node i goes on to `left[i]` or `right[i]`; a leaf goes on to itself.
    """

    roots: np.ndarray
    """Shape (trees,): the first node of each; tree t adds to class t modulo the number of classes."""
    feature: np.ndarray
    """Shape (nodes,): the column a node looks at; -1 for a leaf."""
    threshold: np.ndarray
    """Shape (nodes,): numbers up to it go left."""
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    """Shape (nodes,): what a leaf adds."""
    missing: np.ndarray
    """Shape (nodes,): 1 where missing numbers go left, 0 where right, -1 where they count as 0."""
    subset: np.ndarray
    """Shape (nodes,): the row of `subsets` of a node that looks at a category; -1 for the others."""
    subsets: np.ndarray
    """Shape (nodes with categories, levels): whether a level goes left."""
    depth: int
    """The most steps from a root to a leaf."""
    classes: int
    """0 for regression."""
    levels: tuple[int, ...]
    """Number of categories of each column; 0 where it holds numbers."""

    @classmethod
    def fit(
        cls, x: pd.DataFrame, y: np.ndarray, classes: int, seed: int, weights: np.ndarray | None = None
    ) -> Trees:
        """Fit trees to labelled rows.

        Args:
            x: numbers and categories, missing values allowed.
            y: shape (rows,): class codes, or targets.
            classes: 0 for regression.
            seed: names the random stream.
            weights: how much each row counts, shape (rows,); None: all alike.

        Raises:
            MissingExtra: lightgbm is not installed.
        """
        try:
            import lightgbm
        except ImportError as error:
            raise MissingExtra("lightgbm", "trees") from error
        levels = levels_of(x)
        categories = [place for place, count in enumerate(levels) if count]
        data = lightgbm.Dataset(coded(x, levels), y, weight=weights, categorical_feature=categories)
        settings = SETTINGS | {
            "objective": OBJECTIVES.get(classes, "multiclass"),
            "seed": stream_seed(seed, "blend") % 2**31,
            # Where the rows are few, leaves of 20 would leave no tree at all.
            "min_data_in_leaf": min(LEAST_IN_LEAF, max(1, len(y) // 10)),
        }
        if classes > 2:
            settings["num_class"] = classes
        grown = lightgbm.train(settings, data, ROUNDS).dump_model()
        return cls(**_flat([tree["tree_structure"] for tree in grown["tree_info"]], levels), classes=classes)

    def predict(self, x: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, shape (rows, classes), or means, shape (rows,).

        Categories beyond those of the rows it was fitted on count as missing.
        """
        from scipy.special import softmax

        cells = coded(x, self.levels)
        step = max(1, CELLS // len(self.roots))
        score = np.concatenate(
            [self._scores(cells[start : start + step]) for start in range(0, len(cells), step)]
        )
        if self.classes == 0:
            return score[:, 0]
        if self.classes == 2:
            positive = 1.0 / (1.0 + np.exp(-np.clip(score[:, 0], -500, 500)))
            return np.stack([1.0 - positive, positive], axis=1)
        return softmax(score, axis=1)

    def _scores(self, cells: np.ndarray) -> np.ndarray:
        """Return the sums of the leaves that rows of `cells` end in, shape (rows, outputs)."""
        node = np.broadcast_to(self.roots, (len(cells), len(self.roots)))
        for _ in range(self.depth):
            found = np.take_along_axis(cells, np.maximum(self.feature[node], 0), axis=1)
            node = np.where(self._goes_left(node, found), self.left[node], self.right[node])
        values = self.value[node]
        outputs = self.classes if self.classes > 2 else 1
        return values.reshape(len(cells), -1, outputs).sum(axis=1)

    def _goes_left(self, node: np.ndarray, found: np.ndarray) -> np.ndarray:
        missing_cell, missing = np.isnan(found), self.missing[node]
        values = np.where(missing_cell, 0.0, found)
        left = np.where(missing_cell & (missing >= 0), missing == 1, values <= self.threshold[node])
        if not len(self.subsets):
            return left
        subset = self.subset[node]
        level = np.minimum(values.astype(np.int64), self.subsets.shape[1] - 1)
        return np.where(subset >= 0, ~missing_cell & self.subsets[subset, level], left)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name, for a file."""
        names = [item.name for item in fields(self)]
        return {name: np.asarray(getattr(self, name)) for name in names if name not in ("classes", "levels")}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], classes: int, levels: tuple[int, ...]) -> Trees:
        """Return the trees that `to_arrays` wrote, for a table whose features have these `levels`.

        Raises:
            BundleError: they are not for so many classes and features, or lead to nodes that are none.
        """
        try:
            depth = int(arrays["depth"])
            rest = {name: array for name, array in arrays.items() if name != "depth"}
            trees = cls(**rest, depth=depth, classes=classes, levels=levels)
            trees._check()
        except (KeyError, TypeError, ValueError) as error:
            reason = str(error)[:160]
            raise BundleError(f"the trees cannot be used: {reason}", "write the bundle again") from error
        return trees

    def _check(self) -> None:
        """Raise ValueError where an array is not what `fit` makes."""
        nodes, kinds = len(self.feature), {"threshold": "f", "value": "f", "subsets": "b"}
        for name, array in self.to_arrays().items():
            if array.dtype.kind != kinds.get(name, "i"):
                raise ValueError(f"{name} holds {array.dtype}")
            if name not in ("roots", "subsets", "depth") and array.shape != (nodes,):
                raise ValueError(f"{name} has the shape {array.shape}")
        outputs = self.classes if self.classes > 2 else 1
        whole = self.roots.ndim == 1 and len(self.roots) > 0 and len(self.roots) % outputs == 0
        if not whole or not 0 <= self.depth <= DEEPEST:
            raise ValueError("they belong to another table")
        for name, low, high in (
            ("roots", 0, nodes),
            ("left", 0, nodes),
            ("right", 0, nodes),
            ("feature", -1, len(self.levels)),
            ("missing", -1, 2),
            ("subset", -1, len(self.subsets)),
        ):
            array = getattr(self, name)
            if len(array) and not (low <= array.min() and array.max() < high):
                raise ValueError(f"{name} leads outside")
        if self.subsets.shape[1:] != (max(self.levels),) or not np.isfinite(self.value).all():
            raise ValueError("they belong to another table")


def _flat(structures: list[dict[str, Any]], levels: tuple[int, ...]) -> dict[str, Any]:
    """Return LightGBM's nested trees as the fields of `Trees`."""
    nodes: list[dict[str, Any]] = []
    subsets: list[np.ndarray] = []
    roots, depth = [], 0
    for structure in structures:
        roots.append(len(nodes))
        for node, steps in _walk(structure, len(nodes)):
            nodes.append(_entry(node, subsets, max(levels)))
            depth = max(depth, steps)
    entries = {name: np.array([node[name] for node in nodes]) for name in nodes[0]}
    table = np.array(subsets, dtype=bool).reshape(len(subsets), max(levels))
    return entries | {"roots": np.array(roots), "subsets": table, "depth": depth, "levels": levels}


def _walk(structure: dict[str, Any], first: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield (node, depth) level by level; each node carries its own number and that of its first child."""
    level, number, steps = [structure], first, 0
    while level:
        below = [child for node in level for child in _children(node)]
        next_child = number + len(level)
        for node in level:
            count = len(_children(node))
            yield (
                node | {"at": number, "child": next_child if count else number, "leaf": not count},
                steps,
            )
            number, next_child = number + 1, next_child + count
        level, steps = below, steps + 1


def _children(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [node["left_child"], node["right_child"]] if "left_child" in node else []


def _entry(node: Mapping[str, Any], subsets: list[np.ndarray], width: int) -> dict[str, Any]:
    """Return one node's place in the arrays; a node that looks at a category adds a row to `subsets`."""
    leaf, subset, threshold = node["leaf"], -1, 0.0
    if not leaf and node["decision_type"] == "==":
        subset = len(subsets)
        subsets.append(np.isin(np.arange(width), [int(level) for level in node["threshold"].split("||")]))
    elif not leaf:
        threshold = float(node["threshold"])
    kept = not leaf and node["missing_type"] == "NaN"
    return {
        "feature": -1 if leaf else node["split_feature"],
        "threshold": threshold,
        "left": node["child"],
        "right": node["child"] if leaf else node["child"] + 1,
        "value": float(node["leaf_value"]) if leaf else 0.0,
        "missing": int(node["default_left"]) if kept else -1,
        "subset": subset,
    }
