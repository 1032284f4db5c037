"""A model card of a bundle in Markdown, as the model hub shows it: base, licence, data, figures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tttab.text import markdown_text, shown

_ADAPTED = ("rule", "steps", "chosen_step", "accepted")
TITLES = {
    "held_out": "held-out queries (they chose the step)",
    "test": "test rows (never seen)",
    "new_held_out": "held-out rows of the last update (they chose the step)",
    "old_held_out": "held-out rows from before the last update",
}
"""What the rows are called that a bundle's figures were measured on."""


def model_card(manifest: Mapping[str, Any]) -> str:
    """Return the card of a bundle.

    Args:
        manifest: as `read_manifest` returns it.
    """
    return "\n".join([*_header(manifest), *_body(manifest)]) + "\n"


def _header(manifest: Mapping[str, Any]) -> Iterator[str]:
    terms = manifest["base"].get("license", "")
    # The hub knows a few names alone; all others are `other` with a name.
    known = "apache-2.0" if terms.startswith("Apache 2.0") else "mit" if terms == "MIT" else "other"
    yield "---"
    yield f"license: {known}"
    if known == "other":
        yield f"license_name: {_one_word(terms) or 'unknown'}"
    yield f"tags: [tabular-{manifest['task']}, test-time-training, tttab]"
    yield "---"


def _body(manifest: Mapping[str, Any]) -> Iterator[str]:
    base, target = manifest["base"], markdown_text(manifest["schema"]["target"])
    table, how = _part(manifest["record"], "table"), _part(manifest["record"], "adaptation")
    yield f"# {markdown_text(table.get('name', '')) or target}"
    yield ""
    yield (
        f"{markdown_text(base['name'])}, adapted by test-time training to predict {target}. It predicts from "
        f"{manifest['rows']:,} context rows, {_where(manifest)}{_held(manifest)}."
    )
    yield ""
    provenance = markdown_text(base["provenance"])
    yield f"- Base: {markdown_text(base['file'])}, {provenance}, SHA-256 {markdown_text(base['sha256'])}"
    yield f"- Licence of the base: {markdown_text(base.get('license') or 'not known')}"
    words = [f"{name.replace('_', ' ')} {shown(how[name], 60)}" for name in _ADAPTED if name in how]
    if words:
        yield f"- Adapted: {markdown_text(', '.join(words))}"
    yield f"- Made: {markdown_text(manifest['created'])} by tttab {markdown_text(manifest['tttab'])}"
    for name, measured in _part(manifest["record"], "metrics").items():
        yield from _figures(
            TITLES.get(name, name), "before" if name.endswith("_held_out") else "pretrained", measured
        )


def _where(manifest: Mapping[str, Any]) -> str:
    if "cache" in manifest["files"]:
        return "of which the bundle holds keys, values and fitted preprocessing"
    return "which are stored in the bundle, unencrypted"


def _held(manifest: Mapping[str, Any]) -> str:
    return f", with {manifest['held']['rows']:,} held-out rows" if "held" in manifest else ""


def _figures(title: str, before_it: str, measured: Any) -> Iterator[str]:
    before, after = _part(measured, "before"), _part(measured, "after")
    yield ""
    yield f"| {markdown_text(title)} | {before_it} | adapted |"
    yield "|---|---|---|"
    for metric, value in before.items():
        yield f"| {markdown_text(metric)} | {_number(value)} | {_number(after.get(metric))} |"


def _part(record: Any, name: str) -> Mapping[str, Any]:
    """Return an object of a manifest; an empty one where something else stands there."""
    found = record.get(name) if isinstance(record, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "-"


def _one_word(terms: str) -> str:
    return "-".join(re.findall(r"[a-z0-9.]+", shown(terms, 60).lower()))
