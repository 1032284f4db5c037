"""Reading model files without ever running code from them: tensors, and a header of plain data.

A checkpoint is a state dict, the architecture's configuration and what else its family notes. `.safetensors`
files carry the latter two as JSON in their header; `.ckpt` files are torch archives. A file is opened once:
the bytes that were hashed are the ones that are used, and its content says what it is, not its name.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tttab.errors import ModelError

if TYPE_CHECKING:
    import torch

LARGEST_FILE = 4 * 1024**3
"""Bytes. The largest network that the installed tabpfn builds by itself takes 0.9 GB."""
LARGEST_HEADER = 4 * 1024**2
"""Bytes of JSON or of a pickle's instructions; what tttab and tabpfn write takes some 0.2 MB."""
LARGEST_WEIGHT = 1e6
"""Far beyond it products of two layers overflow float32, all answers are NaN; trained ones stay below 1e3."""
SPARE = 2
"""The tensors of a file may take this many times its bytes: those of an archive may share storage."""


_OTHER_OBJECT = re.compile(r"GLOBAL ([\w.]+)")


def read_checkpoint(path: str | os.PathLike[str], expected_sha256: str | None = None) -> dict[str, Any]:
    """Return a checkpoint as `{"state_dict", "config", …}`, and as `"sha256"` the hash of the file's bytes.

    Args:
        path: the file; a link is followed, and its own name is the one in messages.
        expected_sha256: refuse a file with another hash, in hex.

    Raises:
        ModelError: the file is missing, damaged, not a model's checkpoint, not the expected one, or would
            have to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no model file at {path}", f"put the checkpoint there: {path}, or use --model auto")
    try:
        data = _read_bytes(path)
        digest = hashlib.sha256(data).hexdigest()
        if expected_sha256 not in (None, digest):
            raise ModelError(
                f"{path.name} was changed: its hash is {digest[:12]}…, not {expected_sha256[:12]}…",
                "use the file that was recorded",
            )
        checkpoint = _read_torch(data) if _is_archive(data) else _read_safetensors(data)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{path.name} is not a readable checkpoint: {_reason(error)}", "--model auto"
        ) from error
    _check_form(checkpoint, path.name, len(data))
    return {**checkpoint, "sha256": digest}


def _read_bytes(path: Path) -> bytes:
    """Return the file's bytes; what its start and size show to be no checkpoint is not read whole.

    Raises:
        ValueError: it is none.
    """
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > LARGEST_FILE:
            raise ValueError(
                f"it has {size / 1e9:.1f} GB, no checkpoint has more than {LARGEST_FILE / 1e9:.1f}"
            )
        start = stream.peek(9)[:9]
        if start.lstrip().lower().startswith((b"<!doctyp", b"<html")):
            raise ModelError(
                f"{path.name} is a web page, not a checkpoint: perhaps a log-in page came in its place",
                "download it again: tttab models list names the ways; or --model auto",
            )
        if not _is_archive(start):
            header = int.from_bytes(start[:8], "little")
            if len(start) < 9 or start[8:] != b"{" or header > size - 8:
                raise ValueError("it is neither a safetensors file nor a torch archive, or it was cut")
            _check_header(header)
        return stream.read()


def _is_archive(data: bytes) -> bool:
    return data.startswith(b"PK\x03\x04")


def _check_header(size: int) -> None:
    if size > LARGEST_HEADER:
        raise ValueError(f"its header has {size / 1e6:.1f} MB, more than any checkpoint's")


def _read_safetensors(data: bytes) -> dict[str, Any]:
    from safetensors.torch import load

    state = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {
        **{key: json.loads(value) for key, value in header.get("__metadata__", {}).items()},
        "state_dict": state,
    }


def _read_torch(data: bytes) -> dict[str, Any]:
    import torch

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its parts are compressed, which torch never does")
    _check_header(max((entry.file_size for entry in entries if entry.filename.endswith(".pkl")), default=0))
    # Said outright, so that neither TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD nor torch's settings say otherwise.
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True, mmap=False)


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        other = _OTHER_OBJECT.search(str(error))
        what = other[1] if other else "something"
        return f"it holds {what}, which is neither a tensor nor plain data and is never loaded"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def _check_form(checkpoint: object, name: str, size: int) -> None:
    """Refuse what is no checkpoint, and tensors that are other than they seem.

    A tensor may be a view that repeats few bytes without end, stand for no bytes at all, or be sparse.
    """
    import torch

    if not (
        isinstance(checkpoint, dict)
        and isinstance(checkpoint.get("config"), dict)
        and isinstance(checkpoint.get("state_dict"), dict)
        and all(isinstance(key, str) for key in checkpoint["state_dict"])
        and all(isinstance(value, torch.Tensor) for value in checkpoint["state_dict"].values())
    ):
        raise ModelError(
            f"{name} is not a model's checkpoint: it lacks the state_dict and config that one holds",
            "--model auto",
        )
    state = checkpoint["state_dict"].values()
    dense = all(
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_complex()
        for value in state
    )
    if not dense or sum(value.numel() * value.element_size() for value in state) > SPARE * size:
        raise ModelError(f"{name} holds tensors that are not plain numbers of its own", "--model auto")


def check_weights(state: dict[str, torch.Tensor], file: str) -> None:
    """Refuse weights that are no numbers or beyond `LARGEST_WEIGHT`; `file`: its name, for the message.

    Raises:
        ModelError: there is one.
    """
    for name, value in state.items():
        if not (value.abs() <= LARGEST_WEIGHT).all():
            raise ModelError(
                f"the weights in {file} are not all numbers up to {LARGEST_WEIGHT:g}: {name}", "--model auto"
            )
