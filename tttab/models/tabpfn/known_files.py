"""The files that Prior Labs publishes for tabpfn: names, licences, sizes, and what the weights have seen.

File names are those of tabpfn 9.2's `model_loading`. Licences follow tabpfn's README; what a file was trained
on and its size follow the model pages on the Hugging Face Hub (Prior-Labs/TabPFN-v2-clf, tabpfn_2_5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tttab.core import REAL, SYNTHETIC, KnownModel, Release

ALIAS = "trained on real tables too (older downloads), or a copy of its base file (newer ones)"
"""In 2026 the model page replaced these files by copies of their base: the hash tells which one is there."""
UNSTATED = "trained on what is not recorded here: see its model page"

_V2_CLASSIFIERS = (
    ("tabpfn-v2-classifier.ckpt", SYNTHETIC, None),
    ("tabpfn-v2-classifier-finetuned-zk73skhh.ckpt", REAL, None),
    ("tabpfn-v2-classifier-gn2p4bpt.ckpt", SYNTHETIC, 12.9),
    ("tabpfn-v2-classifier-llderlii.ckpt", SYNTHETIC, 29.0),
    ("tabpfn-v2-classifier-od3j1g5m.ckpt", SYNTHETIC, 29.0),
    ("tabpfn-v2-classifier-vutqq28w.ckpt", SYNTHETIC, 12.9),
    ("tabpfn-v2-classifier-znskzxi4.ckpt", SYNTHETIC, None),
    ("tabpfn-v2-classifier-finetuned-znskzxi4-tvvss6bp.ckpt", ALIAS, None),
    ("tabpfn-v2-classifier-finetuned-vutqq28w-boexhu6h.ckpt", ALIAS, None),
    ("tabpfn-v2-classifier-finetuned-od3j1g5m-4svepuy5.ckpt", ALIAS, None),
    ("tabpfn-v2-classifier-finetuned-llderlii-oyd7ul21.ckpt", ALIAS, None),
    ("tabpfn-v2-classifier-finetuned-gn2p4bpt-xp6f0iqb.ckpt", ALIAS, None),
    ("tabpfn-v2-classifier-v2_default.ckpt", UNSTATED, None),
)
_V2_REGRESSORS = (
    ("tabpfn-v2-regressor.ckpt", SYNTHETIC, None),
    ("tabpfn-v2-regressor-09gpqh39.ckpt", SYNTHETIC, None),
    ("tabpfn-v2-regressor-2noar4o2.ckpt", SYNTHETIC, None),
    ("tabpfn-v2-regressor-wyl4o83o.ckpt", SYNTHETIC, None),
    ("tabpfn-v2-regressor-v2_default.ckpt", UNSTATED, None),
)
_V2_5_CLASSIFIERS = (
    ("tabpfn-v2.5-classifier-v2.5_default.ckpt", REAL, None),
    ("tabpfn-v2.5-classifier-v2.5_default-2.ckpt", SYNTHETIC, None),
    ("tabpfn-v2.5-classifier-v2.5_large-features-L.ckpt", SYNTHETIC, None),
    ("tabpfn-v2.5-classifier-v2.5_large-features-XL.ckpt", SYNTHETIC, None),
    ("tabpfn-v2.5-classifier-v2.5_large-samples.ckpt", SYNTHETIC, None),
    ("tabpfn-v2.5-classifier-v2.5_real-large-features.ckpt", REAL, None),
    ("tabpfn-v2.5-classifier-v2.5_real-large-samples-and-features.ckpt", REAL, None),
    ("tabpfn-v2.5-classifier-v2.5_real.ckpt", REAL, None),
    ("tabpfn-v2.5-classifier-v2.5_variant.ckpt", SYNTHETIC, None),
)
_V2_5_REGRESSORS = (
    ("tabpfn-v2.5-regressor-v2.5_default.ckpt", SYNTHETIC, None),
    ("tabpfn-v2.5-regressor-v2.5_low-skew.ckpt", SYNTHETIC, None),
    ("tabpfn-v2.5-regressor-v2.5_quantiles.ckpt", SYNTHETIC, None),
    ("tabpfn-v2.5-regressor-v2.5_real-variant.ckpt", REAL, None),
    ("tabpfn-v2.5-regressor-v2.5_real.ckpt", REAL, None),
    ("tabpfn-v2.5-regressor-v2.5_small-samples.ckpt", SYNTHETIC, None),
    ("tabpfn-v2.5-regressor-v2.5_variant.ckpt", SYNTHETIC, None),
)
_V3_CLASSIFIERS = (
    ("tabpfn-v3-classifier-v3_default.ckpt", UNSTATED, None),
    ("tabpfn-v3-classifier-v3_20260417_binary.ckpt", UNSTATED, None),
    ("tabpfn-v3-classifier-v3_20260417_multiclass.ckpt", UNSTATED, None),
    ("tabpfn-v3-classifier-v3_20260506_ood.ckpt", UNSTATED, None),
)
_V3_REGRESSORS = (
    ("tabpfn-v3-regressor-v3_default.ckpt", UNSTATED, None),
    ("tabpfn-v3-regressor-v3_20260417_mediumdata.ckpt", UNSTATED, None),
    ("tabpfn-v3-regressor-v3_20260506_timeseries.ckpt", UNSTATED, None),
    ("tabpfn-v3-regressor-v3_20260506_ood.ckpt", UNSTATED, None),
)
_V3_5 = (
    ("tabpfn-v3.5-20260909.safetensors", UNSTATED, None),
    ("tabpfn-v3.5-20260909_multiclass.safetensors", UNSTATED, None),
)
_V3_5_FAST = (("tabpfn-v3.5-fast-20260909.safetensors", UNSTATED, None),)

Entry = tuple[str, str, float | None]
"""(file name, provenance, megabytes where a model page states them)."""


@dataclass(frozen=True)
class Version(Release):
    """The files of one tabpfn version: its `ModelVersion`, licence and repositories."""

    repositories: tuple[str, str]
    """The hub's repositories: of the classifiers, of the regressors."""
    classifiers: tuple[Entry, ...]
    regressors: tuple[Entry, ...]


_HUB = "https://huggingface.co/Prior-Labs"
VERSIONS = (
    Version("v2", "Apache 2.0 with attribution",
           f"{_HUB}/TabPFN-v2-clf/blob/main/LICENSE.txt", False,
           ("Prior-Labs/TabPFN-v2-clf", "Prior-Labs/TabPFN-v2-reg"), _V2_CLASSIFIERS, _V2_REGRESSORS),
    Version("v2.5", "tabpfn-2.5-license-v1.0, non-commercial", f"{_HUB}/tabpfn_2_5", True,
           ("Prior-Labs/tabpfn_2_5", "Prior-Labs/tabpfn_2_5"), _V2_5_CLASSIFIERS, _V2_5_REGRESSORS),
    Version("v2.6", "tabpfn-2.6-license-v1.0, non-commercial", f"{_HUB}/tabpfn_2_6", True,
           ("Prior-Labs/tabpfn_2_6", "Prior-Labs/tabpfn_2_6"),
           (("tabpfn-v2.6-classifier-v2.6_default.ckpt", UNSTATED, None),),
           (("tabpfn-v2.6-regressor-v2.6_default.ckpt", UNSTATED, None),)),
    Version("v3", "non-commercial", f"{_HUB}/tabpfn_3/blob/main/LICENSE", True,
           ("Prior-Labs/tabpfn_3", "Prior-Labs/tabpfn_3"), _V3_CLASSIFIERS, _V3_REGRESSORS),
    Version("v3.5", "non-commercial", f"{_HUB}/tabpfn_3_5/blob/main/LICENSE", True,
           ("Prior-Labs/tabpfn_3_5", "Prior-Labs/tabpfn_3_5"), _V3_5, _V3_5),
    Version("v3.5-fast", "non-commercial", f"{_HUB}/tabpfn_3_5/blob/main/LICENSE", True,
           ("Prior-Labs/tabpfn_3_5", "Prior-Labs/tabpfn_3_5"), _V3_5_FAST, _V3_5_FAST),
)  # fmt: skip


BY_DEFAULT = (
    "tabpfn-v2-classifier.ckpt",
    "tabpfn-v2-classifier-finetuned-zk73skhh.ckpt",
    "tabpfn-v2-regressor.ckpt",
)
"""What `auto` takes: TabPFN v2, and the variant that tabpfn itself uses by default."""


def official_models() -> Iterator[KnownModel]:
    """Yield the files of every version; of a task's files `BY_DEFAULT` the first is the one to download."""
    for version in VERSIONS:
        for task, repository, files in (
            ("classification", version.repositories[0], version.classifiers),
            ("regression", version.repositories[1], version.regressors),
        ):
            for file, provenance, size in files:
                name = short_name(file, version.version)
                yield KnownModel(
                    name, task, file, provenance, False, version, size, repository, file in BY_DEFAULT
                )


def short_name(file: str, version: str) -> str:
    """Return the name a user types for a file: `tabpfn-v2.5-real`, without the task.

    The file that a version starts with is called by the version alone: `tabpfn-v2`, `tabpfn-v3.5-fast`.
    """
    stem = file.rsplit(".", 1)[0].replace("-classifier", "").replace("-regressor", "")
    rest = stem.removeprefix(f"tabpfn-{version}").removeprefix("-20260909")
    if version != "v2":
        rest = rest.removeprefix(f"-{version}_")
    rest = rest.strip("-_")
    rest = {"default": "", "finetuned-zk73skhh": "finetuned"}.get(rest, rest)
    return f"tabpfn-{version}-{rest}" if rest else f"tabpfn-{version}"
