"""A bundle: a folder with adapted weights, the context rows they belong to, and a manifest.

Files are named after their content and written first; the manifest is replaced last, in one step.
So a crash, Ctrl-C or a full disk at any moment leaves the old bundle whole, and two writers end with
one of their bundles. Reading checks every hash and never runs code from a file. What does not belong
here: training (`adapt`), a table's conversion (`data.schema`), printing (`cli`).
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tttab.core import ModelInfo, Table
from tttab.errors import BundleError, DataError, ModelError
from tttab.files import flush_to_disk, plain, sha256_of, write_text_atomically
from tttab.manifest import (
    AGAIN,
    ATTACHMENT,
    FORMAT,
    HEX,
    MANIFEST,
    digest_of,
    read_manifest,
    verdict_on,
    versions,
)

if TYPE_CHECKING:
    import pandas as pd

    from tttab.data.schema import Schema

READ_ATTEMPTS = 5
"""Readers try again where a writer has replaced the bundle under them."""
Writer = Callable[[Path], None]


@dataclass
class Bundle:
    """A model adapted to a table, with the rows it reads: in memory, saved or loaded."""

    session: Any
    """The adapted `tttab.core.Session`."""
    x: pd.DataFrame
    """The n context rows, as `schema.apply` gives them."""
    y: np.ndarray
    """Shape (n,): class codes, or values."""
    schema: Schema
    record: dict[str, Any] = field(default_factory=dict)
    """How it came to be, plain data: table, split, adaptation, metrics."""
    notes: tuple[str, ...] = ()
    """What a reader should know before trusting predictions, a sentence each."""

    @cached_property
    def context(self) -> Any:
        """The context rows, prepared by the session."""
        return self.session.context(self.x, self.y, len(self.schema.classes))

    @cached_property
    def server(self) -> Any:
        """The predictor with the context's key-value cache; built on first use."""
        return self.session.serve(self.context)

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Return what the session predicts for raw rows: probabilities of shape (rows, classes).

        Raises:
            DataError: a column is missing, or a cell is not of its column's kind.
        """
        return self.server.predict(self.schema.apply(frame))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be built again: the prepared context and the cache."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}


def save_bundle(
    directory: str | os.PathLike[str], bundle: Bundle, attachments: Mapping[str, Writer] | None = None
) -> Path:
    """Write `bundle` to a folder, whole or not at all, and return the manifest's path.

    Args:
        directory: made if it is not there; files of other origin in it are left alone.
        attachments: further files of the bundle: a name such as `predictions.csv` and a function
            that writes it to the path it is given. They are hashed and replaced with the rest.

    Raises:
        BundleError: the weights cannot be written, or an attachment's name is not allowed.
        OSError: the folder cannot be written to; the old bundle in it is whole.
    """
    from filelock import FileLock

    directory = Path(directory)
    writers = {"weights.safetensors": _weights_writer(bundle), "context.parquet": _context_writer(bundle)}
    for name, writer in (attachments or {}).items():
        if not ATTACHMENT.fullmatch(name) or name.split(".")[0] in ("weights", "context"):
            raise BundleError(f"{name!r} cannot be the name of a bundle's file", "predictions.csv")
        writers[name] = writer
    description = _description(bundle)
    json.dumps(description, allow_nan=False)  # what cannot be written must not leave files behind
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / ".lock"):
        old = _old_roles(directory)
        files = _write_files(directory, writers)
        document = {**description, "files": files}
        document["sha256"] = digest_of(document)
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        write_text_atomically(directory / MANIFEST, text + "\n")
        _flush_folder(directory)
        _remove_leftovers(directory, files, old | files.keys())
    return directory / MANIFEST


def load_bundle(directory: str | os.PathLike[str], *, device: str = "auto") -> Bundle:
    """Read a bundle, checking the hash of every file it needs.

    Args:
        directory: the folder.
        device: where the model runs; another type than the one it was adapted on is noted.

    Raises:
        BundleError: there is no bundle, or it is damaged, incomplete or was tampered with.
        RequestError: there is no such device.
    """
    return _while_replaced(Path(directory), lambda manifest: _load(Path(directory), manifest, device))


def table_record(table: Table) -> dict[str, Any]:
    """Return which table a bundle was adapted to, as plain data for `Bundle.record["table"]`."""
    names = ("name", "source", "openml_id", "fingerprint", "target")
    return {name: getattr(table, name) for name in names} | {"rows": len(table)}


def adaptation_record(adapted: Any, rule: str, schedule: Any, seed: int) -> dict[str, Any]:
    """Return how the weights were adapted, as plain data for `Bundle.record["adaptation"]`.

    Args:
        adapted: `tttab.adapt.Adapted`.
        rule: the rule's name.
        schedule: `tttab.adapt.Schedule`.
        seed: the training streams' seed.
    """
    return {
        "rule": rule,
        "schedule": asdict(schedule),
        "seed": seed,
        "steps": len(adapted.history),
        "chosen_step": adapted.step,
        "accepted": adapted.accepted,
        "stopped": adapted.stopped,
        "vetoed": list(adapted.vetoed),
        "seconds": adapted.seconds,
        "held_out_loss": {"before": adapted.before, "after": adapted.after},
        "held_out_ece": {"before": adapted.ece_before, "after": adapted.ece_after},
        "precision": adapted.precision,
    }


def _weights_writer(bundle: Bundle) -> Writer:
    def write(path: Path) -> None:
        from safetensors import SafetensorError

        try:
            bundle.session.save(str(path), {"tttab": _model_record(bundle.session)})
        except SafetensorError as error:
            raise BundleError(f"the weights cannot be written: {error}", "free some disk space") from error

    return write


def _context_writer(bundle: Bundle) -> Writer:
    def write(path: Path) -> None:
        frame = bundle.x.reset_index(drop=True)
        classes = np.array(bundle.schema.classes, dtype=object)
        frame[bundle.schema.target] = classes[bundle.y] if len(classes) else np.asarray(bundle.y, float)
        frame.to_parquet(path, index=False)

    return write


def _write_files(directory: Path, writers: Mapping[str, Writer]) -> dict[str, dict[str, Any]]:
    """Write every file beside the bundle, then move each to the name its content gives it."""
    with tempfile.TemporaryDirectory(dir=directory, prefix=".part-", ignore_cleanup_errors=True) as part:
        files = {}
        for name, writer in writers.items():
            path = Path(part) / name
            writer(path)
            flush_to_disk(path)
            digest = sha256_of(path)
            role, suffix = name.split(".")
            files[role] = {
                "file": f"{role}-{digest[:HEX]}.{suffix}",
                "sha256": digest,
                "bytes": path.stat().st_size,
            }
        for name in writers:
            os.replace(Path(part) / name, directory / files[name.split(".")[0]]["file"])
    _flush_folder(directory)
    return files


def _description(bundle: Bundle) -> dict[str, Any]:
    import tttab

    return {
        "format": FORMAT,
        "tttab": tttab.__version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "task": bundle.schema.task,
        "base": asdict(bundle.session.info),
        "model": _model_record(bundle.session),
        "rows": len(bundle.y),
        "schema": plain(bundle.schema.to_dict()),
        "record": plain(bundle.record),
        "versions": versions(),
    }


def _model_record(session: Any) -> dict[str, Any]:
    """Return what the weights depend on besides their file: column embeddings differ by device and dtype."""
    weight = next(session.module.parameters())
    return {"seed": session.seed, "device": weight.device.type, "dtype": str(weight.dtype).split(".")[-1]}


def _load(directory: Path, manifest: dict[str, Any], device: str) -> Bundle:
    from tttab.data.schema import schema_from_dict
    from tttab.models import open_model

    for role in ("weights", "context"):
        verdict = verdict_on(directory, manifest["files"][role])
        if verdict != "ok":
            raise BundleError(
                f"{directory / manifest['files'][role]['file']} {verdict}", f"{AGAIN}{directory}"
            )
    try:
        schema = schema_from_dict(manifest["schema"])
        x, y = _read_context(directory / manifest["files"]["context"]["file"], schema, manifest["rows"])
        weights = directory / manifest["files"]["weights"]["file"]
        digest, seed = manifest["files"]["weights"]["sha256"], manifest["model"]["seed"]
        session = open_model(str(weights), schema.task, device=device, seed=seed, expected_sha256=digest)
    except (DataError, ModelError) as error:
        raise BundleError(
            f"the bundle in {directory} cannot be used: {error.message}", f"{AGAIN}{directory}"
        ) from error
    session.info = replace(_base_of(manifest), parameters=session.info.parameters)
    return Bundle(session, x, y, schema, manifest["record"], _mismatches(manifest, session))


def _read_context(path: Path, schema: Schema, rows: int) -> tuple[pd.DataFrame, np.ndarray]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        frame = parquet.read_table(path).to_pandas(ignore_metadata=True)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path.name} is not a readable Parquet file: {str(error)[:120]}") from error
    if schema.target not in frame.columns or len(frame) != rows:
        raise DataError(f"{path.name} does not hold the {rows} context rows that the manifest tells of")
    # Dates are stored as the model reads them: days.
    stored = [
        replace(column, kind="number") if column.kind == "date" else column for column in schema.columns
    ]
    return replace(schema, columns=tuple(stored)).apply(frame), schema.labels(frame[schema.target])


def _base_of(manifest: dict[str, Any]) -> ModelInfo:
    base = manifest["base"]
    return ModelInfo(base["name"], base["file"], base["sha256"], base["provenance"], manifest["task"])


def _mismatches(manifest: dict[str, Any], session: Any) -> tuple[str, ...]:
    was, now = manifest["model"], _model_record(session)
    notes = [
        f"the weights were adapted with {what} {was[what]} and are used with {now[what]}: column embeddings "
        "differ between them, so predictions may be worse"
        for what in ("device", "dtype")
        if was[what] != now[what]
    ]
    wrote, here = manifest["versions"].get("tabpfn"), versions()["tabpfn"]
    if wrote != here:
        notes.append(f"the bundle was written with tabpfn {wrote}, this is {here}: preprocessing may differ")
    return tuple(notes)


def _while_replaced(directory: Path, read: Callable[[dict[str, Any]], Bundle]) -> Bundle:
    """Read a bundle; start over where another process has put a new one in its place meanwhile."""
    for attempt in range(READ_ATTEMPTS):
        manifest = read_manifest(directory)
        try:
            return read(manifest)
        except (BundleError, FileNotFoundError):
            if attempt == READ_ATTEMPTS - 1 or read_manifest(directory)["sha256"] == manifest["sha256"]:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def _old_roles(directory: Path) -> set[str]:
    try:
        return set(read_manifest(directory)["files"])
    except BundleError:
        return set()


def _remove_leftovers(directory: Path, files: Mapping[str, Any], roles: set[str]) -> None:
    """Remove what older manifests named and what killed writers left; the lock is held."""
    ours = re.compile(f"({'|'.join(sorted(roles))})-[0-9a-f]{{{HEX}}}\\.(safetensors|csv|json|parquet)")
    kept = {about["file"] for about in files.values()}
    for path in list(directory.iterdir()):
        if path.name.startswith(".part-") and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif (ours.fullmatch(path.name) and path.name not in kept) or path.name.startswith(f".{MANIFEST}."):
            with contextlib.suppress(OSError):
                path.unlink()


def _flush_folder(directory: Path) -> None:
    with contextlib.suppress(OSError):  # some systems cannot open a folder
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
