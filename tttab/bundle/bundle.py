"""A bundle: a folder with adapted weights, the context rows they belong to, and a manifest.

A crash, Ctrl-C or a full disk at any moment leaves the old bundle whole (`staging`), and two writers end with
one of their bundles (`claim`). Reading checks every hash and never runs code from a file. Many threads may
use one bundle.
"""

from __future__ import annotations

import datetime
import json
import os
import threading
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tttab.blend.blending import Blend, BlendedPredictor
from tttab.bundle.context_file import no_rows, read_context, rows_writer
from tttab.bundle.manifest import (
    ATTACHMENT,
    FORMAT,
    MANIFEST,
    check_replaceable,
    check_versions,
    checked_bytes,
    read_manifest,
    rewrite_hint,
    versions,
)
from tttab.bundle.packing import weights_file
from tttab.bundle.parts import bytes_writer, model_record, read_blend, trees_writer, weights_writer
from tttab.bundle.staging import Writer, staged
from tttab.contracts import Context, Predictor, Session
from tttab.core import ModelInfo
from tttab.data.levels import levels_of
from tttab.errors import BundleError, DataError, ModelError
from tttab.metrics import decided
from tttab.system.claim import Claim, claimed
from tttab.system.files import plain

if TYPE_CHECKING:
    import pandas as pd

    from tttab.data.schema import Schema

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""What `answers` gives beside the mean of a regression bundle."""
READ_ATTEMPTS = 5
"""Readers try again where a writer has replaced the bundle under them."""
RESERVED = ("weights", "moved", "context", "cache", "held", "trees", "manifest", "made", "new_made")
"""Names that no attachment may have."""


@dataclass(frozen=True)
class Cache:
    """What serves in the place of context rows."""

    content: bytes = field(repr=False)
    """As `tttab.contracts.Rowless` makes it."""
    rows: int
    """So many there were."""


@dataclass
class Bundle:
    """A model adapted to a table, with the rows it reads: in memory, saved or loaded."""

    session: Session
    """The adapted model."""
    x: pd.DataFrame
    """The n context rows, as `schema.apply` gives them; none where `cache` serves."""
    y: np.ndarray
    """Shape (n,): class codes, or values."""
    schema: Schema
    record: dict[str, Any] = field(default_factory=dict)
    """How it came to be, plain data: table, split, adaptation, metrics."""
    notes: tuple[str, ...] = ()
    """What a reader should know before trusting predictions, a sentence each."""
    blend: Blend | None = None
    """Trees that the predictions are mixed with; None: the model predicts alone."""
    held: tuple[pd.DataFrame, np.ndarray] | None = None
    """Labelled rows that chose the step, in the form of x and y: an update is judged on them too."""
    cache: Cache | None = None
    """What serves in a bundle that keeps no rows."""

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._context: Context | None = None
        self._server: Predictor | None = None

    @property
    def context(self) -> Context:
        """The context rows, prepared by the session; made once, whoever asks first."""
        with self._lock:
            self.check_rows("a prepared context")
            if self._context is None:
                self._context = self.session.context(self.x, self.y, len(self.schema.classes))
            return self._context

    @property
    def server(self) -> Predictor:
        """The predictor with the context's key-value cache; made once, whoever asks first."""
        with self._lock:
            if self._server is None:
                model = self._model()
                self._server = model if self.blend is None else BlendedPredictor(model, self.blend)
            return self._server

    def warm_up(self) -> None:
        """Build the cache and predict a row, so that nobody waits for it later."""
        server = self.server
        if len(self.x):
            server.predict(self.x[:1])

    def _model(self) -> Predictor:
        if self.cache is None:
            return self.session.serve(self.context)
        rowless = self.session.rowless
        if rowless is None:
            raise BundleError(f"{self.session.info.name} cannot serve without rows", "--model auto")
        try:
            return rowless.serve(self.cache.content)
        except ModelError as error:
            raise BundleError(f"the bundle cannot be used: {error.message}", rewrite_hint("NEW")) from error

    def check_rows(self, what: str) -> None:
        """Raise BundleError where the bundle keeps no rows; `what` needs them."""
        if self.cache is not None:
            raise BundleError(
                f"the bundle was made with --no-rows: {what} needs its context rows",
                "use the bundle that has them, or write it again: tttab adapt TABLE --target Y --out NEW",
            )

    @property
    def rows(self) -> int:
        """Number of context rows, kept or not."""
        return len(self.y) if self.cache is None else self.cache.rows

    @property
    def threshold(self) -> float | None:
        """From which probability on a row counts as of the second of two classes; None: the likelier one."""
        return self.record.get("threshold", {}).get("value")

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Return what is predicted for raw rows: probabilities of shape (rows, classes).

        Raises:
            DataError: a column is missing, or a cell is not of its column's kind.
        """
        read = self.schema.read(frame)
        for remark in read.remarks:
            warnings.warn(remark, UserWarning, stacklevel=2)
        return self.server.predict(read.x)

    def answers(self, x: pd.DataFrame) -> pd.DataFrame:
        """Return what `tttab predict` writes for rows that `schema.read` gave.

        Column `prediction` is the likeliest class, or what the threshold decides, then the probability per
        class, `p(CLASS)`; or the mean, then quantiles, `q0.05` and so on.
        """
        import pandas as pd

        if not self.schema.classes:
            quantiles = self.server.predict_quantiles(x, QUANTILES)
            named = {f"q{level:g}": quantiles[:, number] for number, level in enumerate(QUANTILES)}
            return pd.DataFrame({"prediction": self.server.predict(x), **named})
        p = self.server.predict(x)
        classes = np.array(self.schema.classes, dtype=object)
        columns = {f"p({name})": p[:, number] for number, name in enumerate(classes)}
        return pd.DataFrame({"prediction": classes[decided(p, self.threshold)], **columns})

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be built again: the prepared context and the cache, and the lock."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()


@contextmanager
def bundle_folder(
    directory: str | os.PathLike[str], *, waiting: Callable[[str], None] | None = None
) -> Generator[Claim]:
    """Hold a folder from before the training until the bundle is saved in it: `save_bundle(claim, …)`.

    That it can be written, that no other process writes there and that no foreign manifest would be
    replaced is proven here. Nothing is left where no bundle is saved.

    Args:
        directory: made if it is not there.
        waiting: called once, with a sentence, if another process is writing there; by default a warning.

    Raises:
        RequestError: another process writes there, or what lies there is not ours.
        OSError: the folder cannot be made or written.
    """
    settings = {} if waiting is None else {"waiting": waiting}
    with claimed(directory, **settings) as claim:
        check_replaceable(directory)
        yield claim


def room_for(session: Session) -> int:
    """Return the bytes of disk that saving a session's weights takes, generously."""
    return 2 * sum(weight.numel() * weight.element_size() for weight in session.parameters("all"))


def save_bundle(
    directory: str | os.PathLike[str] | Claim, bundle: Bundle, attachments: Mapping[str, Writer] | None = None
) -> Path:
    """Write `bundle` to a folder, whole or not at all, and return the manifest's path.

    Args:
        directory: made if it is not there; or what `bundle_folder` holds. Files of other origin in it are
            left alone.
        attachments: further files of the bundle: a name such as `predictions.csv` and a function
            that writes it to the path it is given. They are hashed and replaced with the rest.

    Raises:
        BundleError: the weights or the context cannot be written, or an attachment's name is not allowed.
        RequestError: another process writes there, or what lies there is not ours.
        OSError: the folder cannot be written to; the old bundle in it is whole.
    """
    writers = {f"weights.{bundle.session.suffix}": weights_writer(bundle.session)}
    if bundle.cache is None:
        writers["context.parquet"] = rows_writer(bundle.schema, bundle.x, bundle.y)
    else:
        writers["cache.safetensors"] = bytes_writer(bundle.cache.content)
    if bundle.blend is not None:
        writers["trees.safetensors"] = trees_writer(bundle.blend)
    if bundle.held is not None:
        writers["held.parquet"] = rows_writer(bundle.schema, *bundle.held)
    for name, writer in (attachments or {}).items():
        if not ATTACHMENT.fullmatch(name) or name.split(".")[0] in RESERVED:
            raise BundleError(f"{name!r} cannot be the name of a bundle's file", "predictions.csv")
        writers[name] = writer
    description = _description(bundle)
    json.dumps(description, allow_nan=False)  # what cannot be written must not leave files behind
    folder = nullcontext(directory) if isinstance(directory, Claim) else bundle_folder(directory)
    with folder as claim, staged(claim.folder) as staging:
        staging.publish({**description, "files": staging.write(writers)})
        claim.kept = True
    return claim.folder / MANIFEST


def schema_in(manifest: dict[str, Any], directory: str | os.PathLike[str]) -> Schema:
    """Return what new rows of a bundle must look like, from its manifest alone.

    Raises:
        BundleError: the manifest describes no schema.
    """
    from tttab.data.schema import schema_from_dict

    try:
        return schema_from_dict(manifest["schema"])
    except DataError as error:
        raise _unusable(directory, error) from error


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


def _description(bundle: Bundle) -> dict[str, Any]:
    import tttab

    description = {
        "format": FORMAT,
        "tttab": tttab.__version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "task": bundle.schema.task,
        "base": _base_record(bundle.session.info),
        "model": model_record(bundle.session),
        "rows": bundle.rows,
        "schema": bundle.schema.to_dict(),
        "record": bundle.record,
        "versions": versions(bundle.session.package),
    }
    if bundle.blend is not None:
        description["blend"] = {"weight": bundle.blend.weight}
    if bundle.held is not None:
        description["held"] = {"rows": len(bundle.held[1])}
    return plain(description)


def _base_record(info: ModelInfo) -> dict[str, Any]:
    """Return the base model without how it was found, which names folders of this machine."""
    return {name: value for name, value in asdict(info).items() if name != "chosen"}


def _load(directory: Path, manifest: dict[str, Any], device: str) -> Bundle:
    from tttab.models import for_classes, open_model

    schema = schema_in(manifest, directory)
    role = "context" if "context" in manifest["files"] else "cache"
    context = checked_bytes(directory, manifest["files"][role])
    held = checked_bytes(directory, manifest["files"]["held"]) if "held" in manifest else None
    try:
        if role == "cache":
            check_versions(directory, manifest)
        rows = read_context(context, schema, manifest["rows"]) if role == "context" else no_rows(schema)
        held_out = None if held is None else read_context(held, schema, manifest["held"]["rows"])
        digest, seed = manifest["files"]["weights"]["sha256"], manifest["model"]["seed"]
        with weights_file(directory, manifest) as path:
            session = open_model(str(path), schema.task, device=device, seed=seed, expected_sha256=digest)
    except (DataError, ModelError) as error:
        raise _unusable(directory, error) from error
    session = for_classes(session, len(schema.classes))
    session.info = replace(_base_of(manifest), parameters=session.info.parameters)
    blend = read_blend(directory, manifest, schema, levels_of(rows[0])) if "blend" in manifest else None
    cache = Cache(context, manifest["rows"]) if role == "cache" else None
    notes = _mismatches(manifest, session)
    return Bundle(session, *rows, schema, manifest["record"], notes, blend, held_out, cache)


def _unusable(directory: str | os.PathLike[str], error: DataError | ModelError) -> BundleError:
    return BundleError(f"the bundle in {directory} cannot be used: {error.message}", rewrite_hint(directory))


def _base_of(manifest: dict[str, Any]) -> ModelInfo:
    base = manifest["base"]
    names = ("name", "file", "sha256", "provenance")
    values = {name: base[name] for name in names} | {"license": base.get("license", "")}
    return ModelInfo(**values, task=manifest["task"])


def _mismatches(manifest: dict[str, Any], session: Session) -> tuple[str, ...]:
    was, now = manifest["model"], model_record(session)
    notes = [
        f"the weights were adapted with {what} {was[what]} and are used with {now[what]}: column embeddings "
        "differ between them, so predictions may be worse"
        for what in ("device", "dtype")
        if session.random_embeddings and was[what] != now[what]
    ]
    package = session.package
    wrote, here = manifest["versions"].get(package), versions(package)[package]
    if wrote != here:
        notes.append(
            f"the bundle was written with {package} {wrote}, this is {here}: preprocessing may differ"
        )
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
