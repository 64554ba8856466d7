"""What differs between two sides beside what is compared: machine, packages, settings, ways of running.

>>> environment_differences("b", {"python": "3.11"}, {"python": "3.12"})[0].describe()
'python: 3.11 -> 3.12'
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from mambabench.compare.speed_result import Difference, Match, Way
from mambabench.schema import SpeedSettingsRecord
from mambabench.speed_schema import ReplicateRecord
from mambabench.units import size

_SETTINGS: Final = {
    "weights": "weights",
    "seed": "seed",
    "repeats": "repeats",
    "max_time_s": "longest time of a process",
    "budget_bytes": "emulated memory",
    "text_sha256": "text of the prompts",
    "tokenizer": "tokenizer",
    "verify": "verified",
}
_WAYS: Final = ("arm", "attention", "dtype", "device")
_LOUD_WAYS: Final = ("dtype", "device")
_LOAD: Final = 1.0
"""Difference of load averages that is named."""
_DIGITS: Final = 10


def environment_differences(
    candidate: str, baseline: Mapping[str, Any], other: Mapping[str, Any]
) -> list[Difference]:
    """Compare what two manifests say of the machine and the packages.

    Args:
        candidate: label of the second one.
        baseline: `RunManifest.environment`.
        other: the candidate's.
    """
    before, after = _described(baseline), _described(other)
    return [
        Difference(candidate, what, before.get(what, ""), after.get(what, ""), what in ("processor", "GPU"))
        for what in dict.fromkeys([*before, *after])
        if before.get(what) != after.get(what)
    ]


def setting_differences(
    candidate: str, baseline: SpeedSettingsRecord, other: SpeedSettingsRecord
) -> list[Difference]:
    """Compare what two sweeps were asked for, without their points and the number of processes."""
    return [
        Difference(candidate, words, _setting(name, baseline), _setting(name, other))
        for name, words in _SETTINGS.items()
        if getattr(baseline, name) != getattr(other, name)
    ]


def way_differences(matches: Iterable[Match]) -> list[Difference]:
    """Compare how matched points were run; a model without attention differs in it by its nature."""
    found: dict[Difference, None] = {}
    for match in matches:
        ways: tuple[Way, Way] = (match.baseline_way, match.candidate_way)
        for name in _WAYS:
            before, after = (str(getattr(way, name)) for way in ways)
            if before != after and not (name == "attention" and "none" in (before, after)):
                found[Difference(match.candidate, name, before, after, name in _LOUD_WAYS)] = None
    return list(found)


def process_differences(
    candidate: str, baseline: Sequence[ReplicateRecord], other: Sequence[ReplicateRecord]
) -> list[Difference]:
    """Compare what processes say of themselves: threads, what computed, the text of a token, the load."""
    found = [
        Difference(candidate, what, before, after, loud)
        for what, loud, words in (
            ("threads", True, _threads),
            ("run by", False, _run_by),
            ("text of a token", False, _bytes_per_token),
        )
        if (before := words(baseline)) != (after := words(other)) and before and after
    ]
    loads = [[r.load_average for r in side if r.load_average is not None] for side in (baseline, other)]
    if all(loads):
        before_load, after_load = (statistics.median(side) for side in loads)
        if abs(before_load - after_load) >= _LOAD:
            found.append(Difference(candidate, "load average", f"{before_load:.1f}", f"{after_load:.1f}"))
    return found


def _described(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return what can change speed or memory, flat and in words."""
    processor = _mapping(environment.get("processor"))
    gpus = environment.get("gpus")
    found = {
        "processor": _joined(
            processor.get("name"),
            f"{processor['logical_cores']} cores" if processor.get("logical_cores") else None,
        ),
        "GPU": _joined(*(_mapping(gpu).get("name") for gpu in (gpus if isinstance(gpus, list) else ()))),
        "driver": _text(environment.get("nvidia_driver")),
        "memory": size(memory) if isinstance(memory := environment.get("memory_bytes"), int) else "",
        "system": _text(environment.get("system")),
        "python": _text(environment.get("python")),
        "commit": _commit(_mapping(environment.get("git"))),
    }
    found |= {name: _text(version) for name, version in _mapping(environment.get("packages")).items()}
    return found | {name: _text(value) for name, value in _mapping(environment.get("variables")).items()}


def _mapping(value: object) -> Mapping[str, Any]:
    """Return a part of an environment, which records keep in any shape."""
    return value if isinstance(value, dict) else {}


def _commit(git: Mapping[str, Any]) -> str:
    if not git:
        return ""
    return f"{_text(git.get('commit'))[:_DIGITS]}{' with changes' if git.get('modified') else ''}"


def _joined(*parts: object) -> str:
    return ", ".join(str(part) for part in parts if part)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _setting(name: str, settings: SpeedSettingsRecord) -> str:
    value = getattr(settings, name)
    if name == "budget_bytes":
        return "all there is" if value is None else size(value)
    if name == "text_sha256":
        return "random ids" if value is None else f"a text {value[:_DIGITS]}"
    return _text(value)


def _threads(records: Sequence[ReplicateRecord]) -> str:
    return ", ".join(map(str, sorted({r.threads for r in records if r.threads is not None})))


def _run_by(records: Sequence[ReplicateRecord]) -> str:
    ran = ((r.implementation.partition(" ")[0], r.kernel_path) for r in records if r.kernel_path)
    # Libraries are named by their first word, which most paths begin with.
    paths = (path if path.startswith(library) else f"{library} {path}" for library, path in ran)
    return " / ".join(dict.fromkeys(paths))


def _bytes_per_token(records: Sequence[ReplicateRecord]) -> str:
    known = sorted({r.bytes_per_token for r in records if r.bytes_per_token is not None})
    return f"{statistics.median(known):.2f} bytes" if known else ""
