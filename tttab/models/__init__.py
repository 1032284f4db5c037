"""Foundation models: the known files (`catalog`), reading them (`checkpoint`), one package per family.

To add a known model, add a line to its family's list; to add a family, a package with a `ModelFamily` and a
line to `families.FAMILIES`. Nothing here imports torch or a family's library before a model is opened.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

from tttab.contracts import Session
from tttab.core import ModelInfo, Task
from tttab.errors import FallbackWarning
from tttab.models.catalog import UNKNOWN, names, resolve
from tttab.models.devices import check_adapted_on, pick_device
from tttab.models.families import FAMILIES
from tttab.text import decoded

__all__ = ["for_classes", "names", "open_model", "pick_device", "resolve"]


def open_model(
    spec: str = "auto",
    task: Task = "classification",
    *,
    device: str = "auto",
    seed: int = 0,
    expected_sha256: str | None = None,
    strict: bool = False,
    members: int | None = None,
) -> Session:
    """Open a model by name, `auto` or path.

    Args:
        spec: a name of `names()`, or the path of a checkpoint (`.ckpt` or `.safetensors`).
        task: what the model is for.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        seed: of the model's own preprocessing; tabpfn's order of features and classes per ensemble member.
        expected_sha256: refuse a file whose bytes have another hash, in hex.
        strict: where `auto` cannot download TabPFN v2, raise instead of opening the model that ships with
            tttab. Without it a UserWarning tells of a download that failed.
        members: ensemble members that serve; None: as many as the file says.

    The file is read once: what `info.sha256` names is what runs.

    Raises:
        ModelError: the file is missing, damaged or foreign, not the expected one, or says of itself what
            cannot be.
        RequestError: there is no such device.
    """
    from tttab.models.checkpoint import read_checkpoint

    path, known, why, failed = resolve(spec, task, strict=strict)
    if failed:
        warnings.warn(f"the model is {why}", FallbackWarning, stacklevel=2)
    where = pick_device(device)
    checkpoint = read_checkpoint(path, expected_sha256)
    notes = check_adapted_on(checkpoint, path.name, where)
    info = ModelInfo(
        name=known.name if known else decoded(path.stem),
        file=decoded(path.name),
        sha256=checkpoint["sha256"],
        provenance=known.provenance if known else UNKNOWN,
        task=task,
        notes=notes,
        chosen=why,
        license=known.license if known else str(checkpoint.get("license", "")),
    )
    # Of a file that no family recognises the first one says what is wrong with it.
    family = next((one for one in FAMILIES if one.recognises(checkpoint)), FAMILIES[0])
    session = family.open(checkpoint, info, where, seed)
    session.info = replace(info, parameters=sum(p.numel() for p in session.parameters("all")))
    return session if members is None else session.with_members(members)


def for_classes(session: Session, classes: int) -> Session:
    """Return the model itself, or, where the table has more classes than it has outputs, one that uses codes.

    Its ensemble has as many members as before, or one for each code.
    """
    symbols = session.limits.classes
    if classes <= symbols or symbols < 2:
        return session
    from tttab.models.coded import CodedSession

    coded = CodedSession(session, symbols, classes)
    return coded.with_members(max(session.members, coded.members // session.members))
