"""Manifests changed on purpose, with a hash of their own that fits, as an attacker would."""

from __future__ import annotations

import json

from tttab.bundle.manifest import MANIFEST, digest_of, read_manifest


def write_manifest(folder, document):
    document["sha256"] = digest_of(document)
    (folder / MANIFEST).write_text(json.dumps(document))


def forge(folder, change):
    """Let `change` edit the manifest of a bundle."""
    manifest = read_manifest(folder)
    change(manifest)
    write_manifest(folder, manifest)
