"""Coverage-guided fuzzing of one reader of `fuzz.py` with atheris (libFuzzer for Python).

    pip install atheris
    python -m tools.fuzz_coverage arff CORPUS_FOLDER -max_total_time=300

The reader and PyYAML are instrumented; the corpus folder starts with the target's valid
files and grows. Whatever is neither success nor a `TttabError` of one line, and whatever takes longer
than 5 s, stops the run with the input in a file `crash-…` or `timeout-…`. Options after the folder go
to libFuzzer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tttab", "yaml"]):
    import yaml  # noqa: F401

    import tttab.data.arff_format
    import tttab.data.build
    import tttab.data.load
    import tttab.data.reading
    import tttab.data.registry
    import tttab.data.schema  # noqa: F401
    from tools import fuzz


def main():
    name, corpus, *options = sys.argv[1:]
    target = fuzz.TARGETS[name]
    Path(corpus).mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(target.seeds()):
        Path(corpus, f"seed{number}").write_bytes(content)
    words = Path(corpus).parent / f"{name}.dict"
    words.write_text("".join(f'"{_escaped(token)}"\n' for token in target.tokens))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"input{target.suffix}")

        def try_one(data):
            path.write_bytes(data)
            outcome, detail = fuzz.run_input(target, path)
            if outcome not in ("accepted", "refused"):
                raise AssertionError(detail)

        limits = [f"-timeout={int(fuzz.SECONDS)}", "-max_len=4096", "-rss_limit_mb=6144", f"-dict={words}"]
        atheris.Setup([sys.argv[0], *limits, *options, corpus], try_one)
        atheris.Fuzz()


def _escaped(token):
    """Return the bytes as libFuzzer's dictionaries write them."""
    return "".join(f"\\x{byte:02x}" for byte in token)


if __name__ == "__main__":
    main()
