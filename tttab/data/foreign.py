"""Files in a format that is not read: what they are, and the command that converts them.

Every hint is a command that works when typed (tests type them) and overwrites no file.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

from tttab.errors import DataError
from tttab.text import shell_word

PACKED = {".gz": "gzip -dc", ".bz2": "bzip2 -dc", ".xz": "xz -dc", ".zst": "zstd -dc"}
"""Endings of compressed files, and the command that writes what is in them."""
TEXTS = (".csv", ".tsv", ".txt")
"""Endings of files that may be compressed."""
FORMS = (*TEXTS, ".parquet", ".pq", ".arff")
KNOWN = f"known are {', '.join(FORMS)}, and the first three also with {', '.join(PACKED)} behind them"
_LINES = "DataFrame([json.loads(r) for r in open(sys.argv[1], encoding='utf-8') if r.strip()])"
_READERS = {
    ".jsonl": _LINES,
    ".ndjson": _LINES,
    ".json": "DataFrame(json.load(open(sys.argv[1], encoding='utf-8')))",
    ".xlsx": "read_excel(sys.argv[1])",
    ".xls": "read_excel(sys.argv[1])",
    ".ods": "read_excel(sys.argv[1])",
    ".feather": "read_feather(sys.argv[1])",
    ".arrow": "read_feather(sys.argv[1])",
    ".orc": "read_orc(sys.argv[1])",
    ".dta": "read_stata(sys.argv[1])",
}
"""How pandas reads other tables; of JSON it would change texts to numbers and dates."""
_NEEDS = {".xlsx": ("openpyxl", "openpyxl"), ".xls": ("xlrd", "xlrd"), ".ods": ("odf", "odfpy")}
"""(module, package) that pandas needs for it."""
_ARCHIVES = {".zip": "zipfile", ".tar": "tarfile", ".tgz": "tarfile"}
FOREIGN = (*_READERS, *_ARCHIVES)
"""Endings of files that are refused with a way out."""
_MAGIC = {
    b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz", b"\x28\xb5\x2f\xfd": ".zst",
    b"PAR1": ".parquet", b"ARROW1": ".feather", b"ORC": ".orc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ".xls",
    b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
}  # fmt: skip
_NAMES = {
    ".gz": "gzip data", ".bz2": "bzip2 data", ".xz": "xz data", ".zst": "zstd data", "text": "plain text",
    ".jsonl": "JSON Lines", ".ndjson": "JSON Lines", ".json": "JSON", ".parquet": "Parquet", ".arff": "ARFF",
    ".zip": "a zip archive", ".tar": "a tar archive", ".tgz": "a tar archive", ".xlsx": "an Excel workbook",
    ".xls": "an Excel workbook", ".ods": "a spreadsheet", ".orc": "an ORC file", ".arrow": "an Arrow file",
}  # fmt: skip
_JSON_BEGINS = re.compile(rb'\s*+(?:\{\s*+"(?:[^"\\]|\\.)*+"\s*+:|\[\s*+[\[{])', re.DOTALL)
_ARFF_BEGINS = re.compile(rb"(?:\s*+%[^\n]*+\n)*+\s*+@(?:relation|attribute)\s", re.IGNORECASE)
_CONTROL = bytes({*range(32), 127} - {9, 10, 11, 12, 13})


def split_ending(path: Path) -> tuple[str, str, str]:
    """Return (name without its endings, ending of its format, ending of its compression)."""
    name, packing = path.name, path.suffix.lower()
    if packing not in PACKED:
        return path.stem, packing, ""
    inner = Path(name[: -len(packing)])
    return inner.stem, inner.suffix.lower(), packing


def refusal(path: Path, raw: bytes) -> DataError | None:
    """Return why a file is not read and what to type instead; None where its ending fits its content.

    Args:
        path: a regular file.
        raw: its first bytes, as they stand.
    """
    _, form, packing = split_ending(path)
    kind = kind_of(raw, path)
    if packing and kind == packing and form in TEXTS:
        return None  # `inner_refusal` looks further
    if packing and kind == packing:
        return _refuse_unpacked(path, f"{path} has no known ending; {KNOWN}", form)
    if raw.startswith(b"PAR1") and form in (".parquet", ".pq"):
        return None
    if kind in PACKED and form in _ARCHIVES:
        return _foreign(path, form)
    if kind in PACKED or kind in ("text", ".arff", ".parquet"):
        return _refuse_named(path, kind, form, packing)
    return _refuse_kind(path, kind or (form if form in FOREIGN else ""), form)


def inner_refusal(path: Path, head: bytes) -> DataError | None:
    """Return why what a compressed file holds is not read; None where it may be a table."""
    kind = kind_of(head, path)
    if kind.startswith("utf-"):
        return _recode(path, kind)
    if kind in ("", "text"):
        return None
    if kind == ".tar":
        return _foreign(path, kind)
    return _refuse_unpacked(path, f"{path} holds {_called(kind)} inside", kind)


def not_utf8(path: Path) -> DataError:
    """Return the error for text that is not UTF-8: of the 8-bit encodings Latin-1 reads every byte."""
    form = split_ending(path)[1][1:].upper()
    hint = _rewrite(path, "iconv -f latin1 -t utf-8", "-utf8")
    return DataError(f"{path} cannot be read as {form}: it is not UTF-8 text", hint)


def holds_nul(path: Path, line: int) -> DataError:
    """Return the error for a NUL byte, which is no text."""
    return DataError(f"{path} holds a NUL byte in line {line:,}", _rewrite(path, r"tr -d '\000' <", "-clean"))


def first_lines(path: Path, count: int) -> str:
    """Return the command that writes the first lines of a text file to another."""
    return _rewrite(path, f"head -n {max(1, count)}", "-part")


def fewer_columns(path: Path, separator: str, count: int) -> str:
    """Return the command that writes the first 500 columns of a text file and the last to another."""
    mark = "" if separator == "\t" else f"-d {shell_word(separator)} "
    return _rewrite(path, f"cut {mark}-f 1-500,{count}", "-part")


def look_at(path: Path) -> str:
    """Return the command that shows the first characters."""
    packing = split_ending(path)[2]
    return f"{PACKED[packing]} {_word(path)} | head -c 300" if packing else f"head -c 300 {_word(path)}"


def python(code: str, path: Path, out: Path) -> str:
    """Return the command that runs `code` with the paths of a file and of a new one as arguments."""
    return f'{_interpreter()} -c "import sys, {code}" {_word(path)} {_word(out)}'


def free_name(path: Path, name: str) -> Path:
    """Return the path of that name beside `path`, numbered where there is such a file."""
    found, number = path.with_name(name), 2
    while found.exists():
        stem, dot, endings = name.partition(".")
        found, number = path.with_name(f"{stem}-{number}{dot}{endings}"), number + 1
    return found


def kind_of(raw: bytes, path: Path) -> str:
    """Return what bytes are: an ending, an encoding (`utf-16`), `text`, or nothing where it is unclear."""
    if raw.translate(None, _CONTROL) == raw:
        return _kind_of_text(raw)
    magic = next((kind for begin, kind in _MAGIC.items() if raw.startswith(begin)), "")
    if magic:
        return magic
    if raw.startswith(b"PK\x03\x04"):
        return _zipped(path)
    return ".tar" if raw[257:262] == b"ustar" else _wide(raw)


def _kind_of_text(raw: bytes) -> str:
    if _JSON_BEGINS.match(raw):
        line, _, rest = raw.strip().partition(b"\n")
        return ".jsonl" if line.rstrip().endswith(b"}") and rest.lstrip().startswith(b"{") else ".json"
    return ".arff" if _ARFF_BEGINS.match(raw) else "text"


def _zipped(path: Path) -> str:
    from zipfile import BadZipFile, ZipFile

    try:
        with ZipFile(path) as archive:
            names = set(archive.namelist())
    except (BadZipFile, OSError, ValueError):
        return ".zip"
    return ".xlsx" if "xl/workbook.xml" in names else ".ods" if "content.xml" in names else ".zip"


def _wide(raw: bytes) -> str:
    """Return the encoding of text of two bytes a character without a mark at its beginning, or nothing."""
    half = max(1, len(raw) // 2)
    even, odd = raw[::2].count(0) / half, raw[1::2].count(0) / half
    return "utf-16le" if odd > 0.8 > 0.2 > even else "utf-16be" if even > 0.8 > 0.2 > odd else ""


def _refuse_named(path: Path, kind: str, form: str, packing: str) -> DataError | None:
    """Return the error for a readable file under a name that says otherwise."""
    stem = split_ending(path)[0]
    if kind in PACKED:
        return _renamed(path, kind, f"{stem}{form if form in TEXTS else '.csv'}{kind}")
    fits = {"text": (*TEXTS, ".arff"), ".arff": (".arff",), ".parquet": (".parquet", ".pq")}[kind]
    if form in fits and not packing:
        return None
    ending = (form if form in TEXTS else ".csv") if kind == "text" else kind
    return _renamed(path, kind, stem + ending)


def _refuse_kind(path: Path, kind: str, form: str) -> DataError | None:
    if kind.startswith("utf-"):
        return _recode(path, kind)
    if kind in FOREIGN:
        return _foreign(path, kind)
    if form in FORMS:
        return None  # the reader says what is wrong with it
    return DataError(f"{path} has no known ending; {KNOWN}", look_at(path))


def _renamed(path: Path, kind: str, name: str) -> DataError:
    _, form, packing = split_ending(path)
    if form in FORMS:
        message = f"{path} cannot be read as {(packing or form)[1:].upper()}: it holds {_called(kind)}"
    else:
        message = f"{path} has no known ending, it holds {_called(kind)}; {KNOWN}"
    return DataError(message, f"mv {_word(path)} {_word(free_name(path, name))}")


def _refuse_unpacked(path: Path, message: str, ending: str) -> DataError:
    stem, _, packing = split_ending(path)
    new = free_name(path, stem + (ending or ".csv"))
    return DataError(message, f"{PACKED[packing]} {_word(path)} > {_word(new)}")


def _foreign(path: Path, kind: str) -> DataError:
    stem = split_ending(path)[0]
    message = f"{path} is {_called(kind)}, which is not read; {KNOWN}"
    if kind in _ARCHIVES:
        folder = free_name(path, stem)
        return DataError(message, f"{_interpreter()} -m {_ARCHIVES[kind]} -e {_word(path)} {_word(folder)}")
    reader = _READERS[kind]
    modules = "json, pandas" if "json" in reader else "pandas"
    code = f"{modules}; pandas.{reader}.to_csv(sys.argv[2], index=False)"
    command = python(code, path, free_name(path, stem + ".csv"))
    module, package = _NEEDS.get(kind, ("pandas", "pandas"))
    if importlib.util.find_spec(module) is None:
        command = f"{_interpreter()} -m pip install {package} && {command}"
    return DataError(message, command)


def _recode(path: Path, encoding: str) -> DataError:
    hint = _rewrite(path, f"iconv -f {encoding} -t utf-8", "-utf8")
    return DataError(f"{path} is {encoding.upper()} text; UTF-8 is read", hint)


def _rewrite(path: Path, command: str, mark: str) -> str:
    """Return `command` with the file's text as its input and a new file as its output."""
    stem, form, packing = split_ending(path)
    new = _word(free_name(path, stem + mark + form))
    if packing:
        return f"{PACKED[packing]} {_word(path)} | {command.removesuffix(' <')} > {new}"
    return f"{command} {_word(path)} > {new}"


def _word(path: Path) -> str:
    """Return a path as a word that no command takes for an option."""
    return shell_word(f"./{path}" if str(path).startswith("-") else path)


def _interpreter() -> str:
    return shell_word(sys.executable or "python")


def _called(kind: str) -> str:
    return _NAMES.get(kind, f"a {kind[1:]} file")
