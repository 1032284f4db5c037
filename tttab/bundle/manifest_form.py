"""What each field of a bundle's manifest must be, checked before any of them is used.

Matching hashes say nothing about false fields: an unknown seed, a label type of two gigabytes. This is
written by hand and not with pydantic: a path with stars says in one line which field is wrong, and prediction
need not load pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tttab.core import Task

Check = tuple[str, Callable[[Any], bool]]
"""What a field must be, in words, and the test."""
DEEPEST = 40
"""Levels of nesting; a manifest of ours has 6."""
MOST_ROWS = 10**8
LARGEST_SEED = 2**63 - 1
"""Of those that NumPy and torch both take."""
LABEL_KINDS = {"i": int, "u": int, "b": bool, "f": (int, float), "U": str, "O": (str, int, float)}
"""NumPy's kinds of labels, and what such a label is in JSON."""
_LABEL_TYPE = re.compile(r"[<>|=]?([iubfUO])(\d{0,7})")
_SHORT = re.compile(r"\w{1,40}")
_SIZES = {"i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "b": (1,), "f": (2, 4, 8, 16), "O": (0, 8)}


def check_form(manifest: Any) -> None:
    """Raise ValueError, naming the field, where a manifest's field is missing or not what it must be."""
    if _depth(manifest) > DEEPEST:
        raise ValueError("it is nested too deep")
    _check_fields(manifest, _FIELDS)
    _check_schema(manifest)
    try:
        _check_fields(manifest, _ESTIMATOR_FIELDS)
        _check_labels(manifest["record"].get("estimator", {}), len(manifest["schema"]["classes"]))
    except ValueError as error:
        raise ValueError(f"it does not describe an estimator: {error}") from error


def _check_fields(manifest: object, fields: Mapping[str, Check]) -> None:
    for path, (words, test) in fields.items():
        for name, value in _values(manifest, path):
            if not test(value):
                raise ValueError(f"{name} must be {words}, not {value!r:.60}")


def _values(document: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of each field of `path`: `a.b`, `a?` where it may be absent, `a.*` for all."""
    found = [("", document)]
    for step in path.split("."):
        inner = []
        for name, value in found:
            prefix = f"{name}." if name else ""
            if step == "*":
                items = value.items() if isinstance(value, dict) else enumerate(value)
                inner += [(f"{prefix}{key}", item) for key, item in items]
                continue
            key = step.removesuffix("?")
            if not isinstance(value, dict):
                raise ValueError(f"{name or 'it'} must be an object, not {value!r:.60}")
            if key in value:
                inner.append((prefix + key, value[key]))
            elif key == step:
                raise ValueError(f"{prefix}{key} is missing")
        found = inner
    yield from found


def _check_schema(manifest: Mapping[str, Any]) -> None:
    schema = manifest["schema"]
    if schema["task"] != manifest["task"]:
        raise ValueError(f"schema.task must be {manifest['task']}, not {schema['task']!r:.60}")
    classes = schema["classes"]
    if (len(classes) < 2) if manifest["task"] == "classification" else classes:
        raise ValueError(f"schema.classes has {len(classes)} classes, which is none of a {manifest['task']}")
    names = [column["name"] for column in schema["columns"]]
    levels = [column.get("levels", []) for column in schema["columns"]]
    for what, texts in (
        ("columns", [*names, schema["target"]]),
        ("classes", classes),
        *zip(names, levels, strict=True),
    ):
        if len(set(texts)) < len(texts):
            raise ValueError(f"schema holds two {what!r:.40} of one name")


def _check_labels(state: Mapping[str, Any], classes: int) -> None:
    """Check the estimator's labels against their NumPy type: the type decides how much memory they take."""
    found = _LABEL_TYPE.fullmatch(state.get("dtype", "|O"))
    if found is None:
        raise ValueError(f"record.estimator.dtype must be a type of labels, not {state['dtype']!r:.60}")
    kind, size = found[1], int(found[2] or 0)
    labels = state.get("classes", [""] * classes if kind == "O" else None)
    if labels is None or len(labels) != classes:
        raise ValueError(f"record.estimator.classes must be {classes} labels, not {labels!r:.60}")
    whole = size <= max([1, *(len(label) for label in labels if isinstance(label, str))])
    if not (whole if kind == "U" else size in _SIZES[kind]):
        raise ValueError(
            f"record.estimator.dtype is {state['dtype']!r:.60}, which is not that of its classes"
        )
    for label in labels:
        if not isinstance(label, LABEL_KINDS[kind]) or not _in_range(label, kind, size):
            raise ValueError(f"record.estimator.classes holds {label!r:.60}, which is no {state['dtype']}")


def _in_range(label: Any, kind: str, size: int) -> bool:
    bits = 8 * size
    low, high = {"i": (-(2 ** (bits - 1)), 2 ** (bits - 1)), "u": (0, 2**bits)}.get(kind, (0, 0))
    return kind not in "iu" or low <= label < high


def _depth(document: Any) -> int:
    depth, level = 0, [document]
    while level and depth <= DEEPEST:
        depth += 1
        inner = [item.values() if isinstance(item, dict) else item for item in level]
        level = [value for items in inner for value in items if isinstance(value, dict | list)]
    return depth


def _is_count(most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 0 <= value <= most


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


_TEXT: Check = "text", lambda value: isinstance(value, str)
_WORD: Check = "a short word", lambda value: isinstance(value, str) and bool(_SHORT.fullmatch(value))
_OBJECT: Check = "an object", lambda value: isinstance(value, dict)
_LIST: Check = "a list", _is_list
_TASK: Check = " or ".join(Task.__args__), lambda value: value in Task.__args__
_TRUTH: Check = "true, false or null", lambda value: value is None or isinstance(value, bool)
_SIZE: Check = "a whole number of bytes", _is_count(2**60)
_ROWS: Check = f"a whole number up to {MOST_ROWS:,}", _is_count(MOST_ROWS)
_SEED: Check = f"a whole number up to {LARGEST_SEED:,}", _is_count(LARGEST_SEED)

_FIELDS: dict[str, Check] = {
    "tttab": _TEXT,
    "created": _TEXT,
    "task": _TASK,
    "rows": ("a whole number from 1", lambda value: _ROWS[1](value) and value > 0),
    "base": _OBJECT,
    "base.name": _TEXT,
    "base.file": _TEXT,
    "base.sha256": _TEXT,
    "base.provenance": _TEXT,
    "base.license?": _TEXT,
    "model": _OBJECT,
    "model.seed": _SEED,
    "model.device": _WORD,
    "model.dtype": _WORD,
    "schema": _OBJECT,
    "schema.task": _TASK,
    "schema.target": _TEXT,
    "schema.columns": ("a list of one column or more", lambda value: _is_list(value) and bool(value)),
    "schema.columns.*.name": _TEXT,
    "schema.columns.*.kind": _WORD,
    "schema.columns.*.levels?": _LIST,
    "schema.columns.*.levels?.*": _TEXT,
    "schema.classes": _LIST,
    "schema.classes.*": _TEXT,
    "versions": _OBJECT,
    "versions.*": _TEXT,
    "record": _OBJECT,
    "record.split?": _OBJECT,
    "record.split?.k?": _ROWS,
    "record.adaptation?": _OBJECT,
    "record.adaptation?.accepted?": _TRUTH,
    "record.threshold?": _OBJECT,
    "record.threshold?.value": ("a share from 0 to 1", _is_share),
    "blend?": _OBJECT,
    "blend?.weight": ("a share from 0 to 1", _is_share),
    "packed?": _OBJECT,
    "packed?.base": _TEXT,
    "held?": _OBJECT,
    "held?.rows": ("a whole number from 1", lambda value: _ROWS[1](value) and value > 0),
    "files": _OBJECT,
    "files.weights": _OBJECT,
    "files.context?": _OBJECT,
    "files.*": _OBJECT,
    "files.*.file": _TEXT,
    "files.*.sha256": _TEXT,
    "files.*.bytes": _SIZE,
}
_ESTIMATOR_FIELDS: dict[str, Check] = {
    "record.estimator?": _OBJECT,
    "record.estimator?.parameters?": _OBJECT,
    "record.estimator?.parameters?.*": ("text, a number, true, false or null", _is_scalar),
    "record.estimator?.history?": _LIST,
    "record.estimator?.history?.*": _OBJECT,
    "record.estimator?.names?": _TRUTH,
    "record.estimator?.dtype?": _TEXT,
    "record.estimator?.classes?": _LIST,
    "record.estimator?.classes?.*": ("text or a number", lambda value: isinstance(value, str | int | float)),
}
