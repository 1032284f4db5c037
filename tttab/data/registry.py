"""`datasets.yaml`: the known tables and suites, read with the safe loader and checked line by line.

Needs only PyYAML, so names can be completed without pandas.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

import tttab
from tttab.core import Task
from tttab.data.packages import PACKAGES
from tttab.errors import DataError
from tttab.text import shell_word

PACKAGE = Path(tttab.__file__).parent
TABLES = Path(__file__).parent / "tables"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", re.ASCII)
MOST_BYTES = 50_000
"""PyYAML reads 20 to 100 kB a second: a larger file is no catalogue but a mistake, or worse."""
DEEPEST = 8
"""PyYAML's time grows with the square of the depth of brackets."""


@dataclass(frozen=True)
class Entry:
    """One known table."""

    name: str
    openml: int | None = None
    """OpenML's data set id."""
    openml_task: int | None = None
    """OpenML's task id, which prescribes splits."""
    bundled: bool = False
    """True: `tttab/data/tables/NAME.parquet` ships with the package."""
    package: str | None = None
    """Which package on the Python index carries it, and where: `keel/imbalanced/car-good`."""
    target: str | None = None
    """The target column; None: OpenML's default target, or the last column."""
    task: Task = "classification"
    ignore: tuple[str, ...] = ()
    """Columns that are no features: row ids, and what is computed from the target."""
    rows: int | None = None
    features: int | None = None
    classes: int | None = None
    licence: str = ""
    source: str = ""
    tags: tuple[str, ...] = ()

    @property
    def file(self) -> Path | None:
        """The bundled file; None where there is none."""
        return TABLES / f"{self.name}.parquet" if self.bundled else None


@dataclass(frozen=True)
class Catalog:
    """All known tables and the suites made of them."""

    tables: Mapping[str, Entry]
    suites: Mapping[str, tuple[str, ...]]
    path: Path = Path()

    def by_openml_id(self, openml_id: int) -> Entry | None:
        """Return the entry with that OpenML id; a bundled copy comes first."""
        found = [entry for entry in self.tables.values() if entry.openml == openml_id]
        return max(found, key=lambda entry: entry.bundled, default=None)

    def suite(self, name: str) -> tuple[Entry, ...]:
        """Return the tables of a suite, in order.

        Raises:
            DataError: no suite of that name.
        """
        if name not in self.suites:
            near = nearest(name, self.suites)
            raise DataError(
                f"there is no suite {name!r}; known are {', '.join(self.suites)}",
                f"--suite {shell_word(near or next(iter(self.suites), 'offline'))}",
            )
        return tuple(self.tables[member] for member in self.suites[name])


def catalog_path() -> Path:
    """Return where `datasets.yaml` is: in the package, or beside it in a checkout."""
    packed = PACKAGE / "datasets.yaml"
    return packed if packed.exists() else PACKAGE.parent / "datasets.yaml"


@cache
def catalog() -> Catalog:
    """Return the catalogue that ships with the package."""
    return read_catalog(catalog_path())


def names() -> tuple[str, ...]:
    """Return the names of all known tables, sorted: light enough for shell completion."""
    return tuple(sorted(catalog().tables))


def suite_names() -> tuple[str, ...]:
    """Return the names of all suites, in the file's order."""
    return tuple(catalog().suites)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like `name`, whatever its case; None if nothing is near."""
    from difflib import get_close_matches

    lowered = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(name.lower(), lowered, n=1, cutoff=0.4)
    return lowered[near[0]] if near else None


def read_catalog(path: str | os.PathLike[str]) -> Catalog:
    """Read and check a `datasets.yaml`.

    Raises:
        DataError: the file cannot be read or breaks a rule; the message names the line.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(MOST_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}", "tttab data check datasets.yaml") from error
    return parse_catalog(text, path)


def parse_catalog(text: str, path: Path = Path("datasets.yaml")) -> Catalog:
    """Check the text of a `datasets.yaml`; `path` is for the messages.

    Raises:
        DataError: as `read_catalog`.
    """
    return _Checker(path).catalog(_compose(text, path))


def _compose(text: str, path: Path) -> yaml.Node | None:
    if len(text) > MOST_BYTES or _bracket_depth(text) > DEEPEST:
        raise DataError(
            f"{path}: too large or too deep: {MOST_BYTES:,} characters and {DEEPEST} brackets at most",
            _CHECK.format(shell_word(path)),
        )
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = error.problem or error.context or "damaged"
        raise DataError(f"{place}: not YAML: {problem}", _CHECK.format(shell_word(path))) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not YAML: {first}", _CHECK.format(shell_word(path))) from error


def _bracket_depth(text: str) -> int:
    steps = (1 if mark in "[{" else -1 for mark in text if mark in "[]{}")
    return max(accumulate(steps, lambda depth, step: max(0, depth + step), initial=0))


class _Checker:
    """Turns YAML nodes into a `Catalog`; every complaint names the line.

    By hand, not by pydantic: it checks values that YAML has made, when lines, keys given twice and what was
    typed (`010`, `yes`) are gone. The nodes would have to be walked beside it all the same, and completing a
    name would wait for its import.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def catalog(self, root: yaml.Node | None) -> Catalog:
        if root is None:
            raise DataError(f"{self.path}:1: the file is empty", _CHECK.format(shell_word(self.path)))
        parts = self.mapping(root, "the file")
        self.only(parts, ("tables", "suites"), root)
        tables = {}
        for name, (key, node) in self.mapping(self.part(parts, "tables", root), "tables").items():
            tables[name] = self.entry(name, key, node)
        suites = {}
        for name, (key, node) in self.mapping(self.part(parts, "suites", root), "suites").items():
            suites[self.name(name, key)] = self.members(node, name, tables)
        self.unique_ids(tables, parts)
        return Catalog(tables, suites, self.path)

    def entry(self, name: str, key: yaml.Node, node: yaml.Node) -> Entry:
        fields = self.mapping(node, f"table {name!r}")
        self.only(fields, tuple(_FIELDS), key)
        values: dict[str, Any] = {
            field: _FIELDS[field](self, item, field) for field, (_, item) in fields.items()
        }
        entry = Entry(self.name(name, key), **values)
        if entry.openml is None and not entry.bundled and not entry.package:
            self.fail(key, f"table {name!r} needs `openml`, `package` or `bundled: true`")
        if entry.file is not None and not entry.file.exists():
            self.fail(key, f"table {name!r} is bundled, but {entry.file.name} is not in the package")
        if entry.bundled and not (entry.target and entry.licence and entry.source):
            self.fail(key, f"bundled table {name!r} needs `target`, `licence` and `source`")
        return entry

    def members(self, node: yaml.Node, suite: str, tables: Mapping[str, Entry]) -> tuple[str, ...]:
        members = self.texts(node, f"suite {suite!r}")
        for item, member in zip(node.value, members, strict=True):
            if member not in tables:
                near = nearest(member, tables)
                self.fail(item, f"suite {suite!r} names no known table: {member!r}" + _did_you_mean(near))
        if not members or len(set(members)) < len(members):
            self.fail(node, f"suite {suite!r} is empty or names a table twice")
        return members

    def unique_ids(self, tables: Mapping[str, Entry], parts: Mapping[str, Any]) -> None:
        seen: dict[int, str] = {}
        keys = self.mapping(parts["tables"][1], "tables")
        for name, entry in tables.items():
            if entry.openml is None:
                continue
            if entry.openml in seen:
                self.fail(keys[name][0], f"{name!r} and {seen[entry.openml]!r} have one OpenML id")
            seen[entry.openml] = name

    def mapping(self, node: yaml.Node, what: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return {key text: (key node, value node)}."""
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, f"{what} must be a mapping of names to values")
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            text = self.text(key, f"a key of {what}")
            if text in found:
                self.fail(key, f"{what} has the key {text!r} twice")
            found[text] = (key, value)
        return found

    def part(self, parts: Mapping[str, tuple[yaml.Node, yaml.Node]], name: str, root: yaml.Node) -> yaml.Node:
        if name not in parts:
            self.fail(root, f"the part `{name}:` is missing")
        return parts[name][1]

    def only(self, fields: Mapping[str, Any], allowed: tuple[str, ...], node: yaml.Node) -> None:
        for name, (key, _) in fields.items():
            if name not in allowed:
                near = nearest(name, allowed)
                self.fail(key or node, f"unknown field {name!r}{_did_you_mean(near)}")

    def name(self, text: str, node: yaml.Node) -> str:
        if not NAME.fullmatch(text) or text.isdigit():
            self.fail(node, f"{text[:80]!r} is no name: letters, digits, dots, dashes; not digits alone")
        return text

    def text(self, node: yaml.Node, what: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null" or not node.value:
            self.fail(node, f"{what} must be text")
        return node.value

    def texts(self, node: yaml.Node, what: str) -> tuple[str, ...]:
        if not isinstance(node, yaml.SequenceNode):
            self.fail(node, f"{what} must be a list")
        return tuple(self.text(item, f"an item of {what}") for item in node.value)

    def count(self, node: yaml.Node, what: str) -> int:
        text = self.text(node, what)
        if not re.fullmatch(r"[1-9][0-9]{0,8}", text, re.ASCII):
            self.fail(node, f"{what} must be a positive whole number, got {text[:40]!r}")
        return int(text)

    def flag(self, node: yaml.Node, what: str) -> bool:
        text = self.text(node, what)
        if text not in ("true", "false"):
            self.fail(node, f"{what} must be true or false, got {text[:40]!r}")
        return text == "true"

    def task(self, node: yaml.Node, what: str) -> str:
        text = self.text(node, what)
        if text not in ("classification", "regression"):
            self.fail(node, f"{what} must be classification or regression, got {text[:40]!r}")
        return text

    def place(self, node: yaml.Node, what: str) -> str:
        text = self.text(node, what)
        name, _, inside = text.partition("/")
        if name not in PACKAGES or inside.count("/") + 1 != PACKAGES[name].path.count("{}"):
            known = " or ".join(
                f"{name}/{'/'.join('x' * p.path.count('{}'))}" for name, p in PACKAGES.items()
            )
            self.fail(node, f"{what} must be as {known}, got {text[:40]!r}")
        return text

    def fail(self, node: yaml.Node, problem: str) -> None:
        raise DataError(
            f"{self.path}:{node.start_mark.line + 1}: {problem}", _CHECK.format(shell_word(self.path))
        )


def _did_you_mean(near: str | None) -> str:
    return f" (did you mean {near!r}?)" if near else ""


_CHECK = "tttab data check {}"
_FIELDS = {
    "openml": _Checker.count,
    "openml_task": _Checker.count,
    "bundled": _Checker.flag,
    "package": _Checker.place,
    "target": _Checker.text,
    "task": _Checker.task,
    "ignore": _Checker.texts,
    "rows": _Checker.count,
    "features": _Checker.count,
    "classes": _Checker.count,
    "licence": _Checker.text,
    "source": _Checker.text,
    "tags": _Checker.texts,
}
