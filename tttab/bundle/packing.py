"""Packed bundles: only what training changed in the weights, and the hash of the base's file.

A tensor that equals the base's is left out. Of one that changed, the bytes are kept as a difference
(exclusive or, compressed: trained weights share sign, exponent and first digits with the base's). Of one that
changed by a low rank, the factors and the last bits are kept. Unpacking restores the weights file byte for
byte, proven by its hash.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tttab.bundle.low_rank import factors_of, predicted
from tttab.bundle.manifest import check_file, check_replaceable, read_manifest, rewrite_hint
from tttab.bundle.parts import bytes_writer
from tttab.bundle.staging import Writer, staged
from tttab.errors import BundleError, ModelError, RequestError
from tttab.models.catalog import resolve
from tttab.models.checkpoint import LARGEST_FILE, LARGEST_HEADER, read_checkpoint
from tttab.system.claim import claimed
from tttab.system.files import sha256_of
from tttab.text import shell_word

if TYPE_CHECKING:
    import torch

_HEADER = "header"
_LENGTH = 8
"""Bytes at the start of a safetensors file that hold the length of its header."""


@dataclass(frozen=True)
class Packed:
    """What packing made of the weights."""

    moved: int
    tensors: int
    before: int
    """Bytes of the weights."""
    after: int
    """Bytes of what is kept of them."""


def pack_bundle(directory: Path, out: Path, base: Path | None = None) -> Packed:
    """Write a packed copy of a bundle to another folder.

    Args:
        directory: of the bundle; it stays as it is.
        out: made if it is not there.
        base: the base model's file; None: it is looked for by its name.

    Raises:
        BundleError: the bundle is damaged, or packed already, or its weights are a torch archive.
        ModelError: the base is not here, or is another file.
    """
    from safetensors.numpy import save

    manifest = _checked(directory, out)
    entry = manifest["files"]["weights"]
    path = directory / entry["file"]
    if "packed" in manifest:
        raise BundleError(f"{directory} is packed already", f"tttab inspect {shell_word(directory)}")
    if path.suffix != ".safetensors":
        raise BundleError(
            f"{path.name} is a torch archive, which cannot be packed", "pass the bundle on as it is"
        )
    digest = manifest["base"]["sha256"]
    arrays, tensors = _moved(path.read_bytes(), _base_state(manifest, base))
    content = save(arrays)
    writers = copies(directory, manifest, ("weights",))
    writers["moved.safetensors"] = bytes_writer(content)
    publish(out, {**manifest, "packed": {"base": digest}}, writers, {"weights": entry})
    moved = {key.partition(".")[2] for key in arrays} - {""}
    return Packed(len(moved), tensors, entry["bytes"], len(content))


def unpack_bundle(directory: Path, out: Path, base: Path | None = None) -> None:
    """Write the bundle that was packed, byte for byte, to another folder.

    Raises:
        BundleError: the bundle is damaged or not packed.
        ModelError: the base is not here, or is another file.
    """
    manifest = _checked(directory, out)
    if "packed" not in manifest:
        raise BundleError(
            f"{directory} is not packed", f"tttab bundle pack {shell_word(directory)} --out NEW"
        )
    writers = copies(directory, manifest, ("weights", "moved"))
    content = _restored(directory, manifest, base)
    writers["weights.safetensors"] = bytes_writer(content)
    publish(out, {name: value for name, value in manifest.items() if name != "packed"}, writers, {})


@contextmanager
def weights_file(directory: Path, manifest: Mapping[str, Any]) -> Generator[Path]:
    """Yield the weights of a bundle, packed or not, as a file with the hash in the manifest.

    Raises:
        BundleError: it is missing or was changed.
        ModelError: the base of a packed bundle is not here.
    """
    entry = manifest["files"]["weights"]
    if "packed" not in manifest:
        check_file(directory, entry)
        yield directory / entry["file"]
        return
    with tempfile.TemporaryDirectory(prefix="tttab-") as folder:
        path = Path(folder) / entry["file"]
        path.write_bytes(_restored(directory, manifest, None))
        yield path


def _checked(directory: Path, out: Path) -> dict[str, Any]:
    manifest = read_manifest(directory)
    if out.exists() and out.samefile(directory):
        raise RequestError("a bundle is never packed or unpacked in place", "--out ANOTHER_FOLDER")
    return manifest


def _base_state(manifest: Mapping[str, Any], base: Path | None) -> dict[str, torch.Tensor]:
    """Return the tensors of the base model's file, its hash checked."""
    entry = manifest["base"]
    hint = f"tttab models get {shell_word(entry['name'])}, or tttab bundle … --base FILE"
    try:
        path = base or resolve(entry["name"], manifest["task"]).path
    except ModelError as error:
        raise ModelError(f"the base model {entry['name']} is not here: {error.message}", hint) from error
    if not path.is_file() or sha256_of(path) != entry["sha256"]:
        raise ModelError(f"{path} is not the base {entry['file']}, SHA-256 {entry['sha256'][:12]}…", hint)
    return read_checkpoint(path, entry["sha256"])["state_dict"]


def _moved(content: bytes, base: Mapping[str, torch.Tensor]) -> tuple[dict[str, np.ndarray], int]:
    """Return the header and the differences of a weights file by name, and how many tensors it has."""
    head, entries = _layout(content)
    arrays = {_HEADER: _deflated(np.frombuffer(content[:head], np.uint8))}
    for name, place in entries.items():
        adapted = np.frombuffer(content[head + place.start : head + place.end], np.uint8)
        arrays |= _difference(name, place, adapted, _bytes_of(base.get(name), place.dtype))
    return arrays, len(entries)


def _difference(name: str, place: _Place, adapted: np.ndarray, base: np.ndarray) -> dict[str, np.ndarray]:
    """Return what is kept of a tensor: its bytes' difference, or low-rank factors and the rest if smaller."""
    kept = _xor(f"moved.{name}", place, adapted, base)
    if not kept or len(adapted) != len(base) or place.dtype != "F32" or len(place.shape) != 2:
        return kept
    factors = factors_of(_matrix(adapted, place), base_matrix := _matrix(base, place))
    if factors is None:
        return kept
    rest = _xor(f"moved.{name}", place, adapted, predicted(base_matrix, factors).view(np.uint8).reshape(-1))
    shorter = {f"factors.{name}": factors, **rest}
    return min(kept, shorter, key=lambda arrays: sum(array.nbytes for array in arrays.values()))


def _xor(key: str, place: _Place, adapted: np.ndarray, base: np.ndarray) -> dict[str, np.ndarray]:
    delta = adapted ^ base if len(base) == len(adapted) else adapted
    same = len(base) == len(adapted) and not delta.any()
    return {} if same else {key: _deflated(delta.reshape(-1, place.width).T)}


def _matrix(content: np.ndarray, place: _Place) -> np.ndarray:
    return content.view("<f4").reshape(place.shape)


def _restored(directory: Path, manifest: Mapping[str, Any], base: Path | None) -> bytes:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    entry, wanted = manifest["files"]["moved"], manifest["files"]["weights"]
    check_file(directory, entry)
    state = _base_state(manifest, base)
    try:
        content = _joined(load((directory / entry["file"]).read_bytes()), state)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise BundleError(
            f"the weights in {directory} cannot be unpacked: {error}", rewrite_hint(directory)
        ) from error
    if sha256(content).hexdigest() != wanted["sha256"]:
        raise BundleError(
            f"the weights in {directory} are not those that were packed", rewrite_hint(directory)
        )
    return content


def _joined(arrays: Mapping[str, np.ndarray], base: Mapping[str, torch.Tensor]) -> bytes:
    start_of_file = _inflated(arrays[_HEADER], LARGEST_HEADER + _LENGTH).tobytes()
    _, entries = _layout(start_of_file)
    parts, done = [start_of_file], 0
    for name, place in sorted(entries.items(), key=lambda item: item[1]):
        size, values = place.end - place.start, _bytes_of(base.get(name), place.dtype)
        if place.start != done or size > LARGEST_FILE:
            raise ValueError(f"the place of {name:.60} is none")
        if (factors := arrays.get(f"factors.{name}")) is not None:
            values = predicted(_matrix(values, place), factors).view(np.uint8).reshape(-1)
        if (kept := arrays.get(f"moved.{name}")) is not None:
            delta = _inflated(kept, size).reshape(place.width, -1).T.reshape(-1)
            values = delta ^ values if len(values) == len(delta) else delta
        if len(values) != size:
            raise ValueError(f"{name:.60} has another size than the base's")
        parts.append(values.tobytes())
        done = place.end
    return b"".join(parts)


class _Place(NamedTuple):
    """Where a tensor's bytes lie among a file's data."""

    start: int
    end: int
    width: int
    """Bytes of a number."""
    dtype: str
    """As safetensors calls it."""
    shape: tuple[int, ...]


def _layout(content: bytes) -> tuple[int, dict[str, _Place]]:
    """Return where a safetensors file's data begin, and the place of each tensor in them."""
    head = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    header, places = json.loads(content[_LENGTH:head]), {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        count = int(np.prod(entry["shape"], dtype=np.int64))
        whole = type(start) is int and type(end) is int and 0 <= start <= end
        if not whole or (end - start) % max(count, 1):
            raise ValueError(f"the place of {name:.60} is none")
        width = (end - start) // max(count, 1) or 1
        places[name] = _Place(start, end, width, str(entry["dtype"]), tuple(entry["shape"]))
    return head, places


def _bytes_of(tensor: torch.Tensor | None, dtype: str) -> np.ndarray:
    """Return a tensor's bytes in a dtype, shape (bytes,); none of nothing. A base may be kept in float16."""
    import torch

    if tensor is None:
        return np.zeros(0, np.uint8)
    floats = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    if tensor.is_floating_point():
        tensor = tensor.to(floats.get(dtype, tensor.dtype))
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()


def _deflated(values: np.ndarray) -> np.ndarray:
    return np.frombuffer(zlib.compress(np.ascontiguousarray(values).tobytes()), np.uint8)


def _inflated(values: np.ndarray, most: int) -> np.ndarray:
    return np.frombuffer(zlib.decompressobj().decompress(values.tobytes(), most), np.uint8)


def copies(directory: Path, manifest: Mapping[str, Any], without: tuple[str, ...]) -> dict[str, Writer]:
    """Return what copies the files of a bundle but those of some roles; each is checked first."""
    writers: dict[str, Writer] = {}
    for role, entry in manifest["files"].items():
        if role in without:
            continue
        check_file(directory, entry)
        source = directory / entry["file"]
        writers[f"{role}{source.suffix}"] = partial(shutil.copyfile, source)
    return writers


def publish(
    out: Path, manifest: Mapping[str, Any], writers: Mapping[str, Writer], unwritten: Mapping[str, Any]
) -> None:
    """Write a bundle to a folder, whole or not at all.

    Args:
        out: made if it is not there.
        manifest: its files' entries are made anew.
        writers: of the files, by role and ending.
        others: entries of files that are not written.
    """
    with claimed(out) as claim, staged(claim.folder) as staging:
        check_replaceable(out)
        written = staging.write(writers)
        files = {**unwritten, **written}
        order = [role for role in manifest["files"] if role in files]
        staging.publish(
            {**manifest, "files": {role: files[role] for role in dict.fromkeys([*order, *files])}}
        )
        claim.kept = True
