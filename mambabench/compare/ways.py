"""How sides were computed, where that is not the same: a difference may come of that and not of weights.

for remark in ways(baseline, candidates):
    print(remark)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from mambabench.compare.result import Side

if TYPE_CHECKING:
    from mambabench.schema import CheckpointRecord, RunManifest

_WEIGHTS: Final = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
_Found = tuple["RunManifest", "CheckpointRecord | None"]


def ways(baseline: Side, candidates: Sequence[Side]) -> list[str]:
    """Return one sentence for each thing that differs between sides, or that should and does not.

    What a run does not say, as an imported one, is taken to differ from nothing.

    Raises:
        StoreError: a run's records are damaged.
    """
    sides = [baseline, *candidates]
    found = [_found(side) for side in sides]
    remarks = []
    for what, fact in _FACTS:
        said = [fact(one) for one in found]
        if len({value for value in said if value}) > 1:
            each = [f"{side.label} {value}" for side, value in zip(sides, said, strict=True) if value]
            remarks.append(f"{what}: {', '.join(each)}")
    remarks += _codes(sides, found)
    mine = _weights(found[0])
    same = [
        side.label for side, one in zip(sides[1:], found[1:], strict=True) if mine and _weights(one) == mine
    ]
    if same:
        are = "is" if len(same) == 1 else "are"
        remarks.append(
            f"{', '.join(same)} {are} of the same weights as {baseline.label}: "
            "what differs is how they were computed"
        )
    return remarks


def _found(side: Side) -> _Found:
    from mambabench.store import StoredRun

    run = StoredRun(side.run)
    records = list(run.checkpoints().values())
    mine = [record for record in records if record.name == side.model]
    if not mine and len(run.manifest.models) == 1:
        mine = records
    return run.manifest, mine[0] if len(mine) == 1 else None


def _codes(sides: Sequence[Side], found: Sequence[_Found]) -> list[str]:
    """Say which sides of one architecture were computed by different code; others always are."""
    by_family: dict[str, dict[str, str]] = {}
    for side, (_, checkpoint) in zip(sides, found, strict=True):
        if checkpoint is not None:
            code = f"{side.label} by {checkpoint.implementation} ({checkpoint.kernel_path})"
            by_family.setdefault(checkpoint.family, {})[code] = code.removeprefix(side.label)
    return [
        f"computed by different code: {', '.join(codes)}"
        for codes in by_family.values()
        if len(set(codes.values())) > 1
    ]


def _dtype(found: _Found) -> str:
    checkpoint = found[1]
    return "" if checkpoint is None else f"in {checkpoint.dtypes.get('matmul', '')}".removesuffix("in ")


def _device(found: _Found) -> str:
    checkpoint = found[1]
    return "" if checkpoint is None else f"on {checkpoint.device_name}"


def _program(found: _Found) -> str:
    settings: Any = found[0].settings
    return f"by {settings.format}" if found[0].kind == "imported" else "by mambabench"


def _engine(found: _Found) -> str:
    return str(getattr(found[0].settings, "engine", ""))


def _version(package: str) -> Callable[[_Found], str]:
    def fact(found: _Found) -> str:
        settings: Any = found[0].settings
        if found[0].kind == "imported":
            return str(settings.lm_eval_version) if package == "lm-eval" else ""
        packages: Any = found[0].environment.get("packages")
        return str(packages.get(package, "")) if isinstance(packages, dict) else ""

    return fact


def _weights(found: _Found) -> frozenset[str]:
    """Return digests of what a checkpoint's weights are made of; empty where that is not known."""
    checkpoint = found[1]
    if checkpoint is None:
        return frozenset()
    if checkpoint.weights == "random":
        return frozenset({f"{checkpoint.config_sha256} {checkpoint.seed}"})
    files = [*checkpoint.files, *(checkpoint.adapter.files if checkpoint.adapter else ())]
    return frozenset(file.sha256 for file in files if file.name.endswith(_WEIGHTS))


_FACTS: Final[tuple[tuple[str, Callable[[_Found], str]], ...]] = (
    ("scored by different programs", _program),
    ("computed in different types", _dtype),
    ("computed on different devices", _device),
    ("computed by different engines", _engine),
    ("mambabench's version differs", _version("mambabench")),
    ("lm-eval's version differs", _version("lm-eval")),
    ("transformers' version differs", _version("transformers")),
    ("torch's version differs", _version("torch")),
)
