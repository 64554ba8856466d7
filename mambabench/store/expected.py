"""What a run's manifests ask for and its records do not hold.

Records are those of `mambabench.store.overview`: parsed, with the folder that they lie in and a key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mambabench.errors import MambabenchError
from mambabench.fingerprint import digest

if TYPE_CHECKING:
    from mambabench.taskindex import TaskIndex

Json = dict[str, Any]

SWEEPS: Final = ("latency", "throughput", "memory", "conversation")


def plain_json(path: Path) -> Any | None:
    """Return what a JSON file holds, None where it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def missing_of(
    path: Path, manifests: Sequence[Json], records: Sequence[Json]
) -> tuple[list[str], int | None]:
    """Return what is missing in words, and how many records a complete run has, where that is known."""
    kind = manifests[0]["kind"]
    if kind == "imported":
        return [], len(records) or None
    try:
        if kind in SWEEPS:
            return _missing_processes(manifests, records)
        asked = _asked_cells(manifests, records) if kind == "zeroshot" else _asked_long(manifests)
    except (KeyError, TypeError, ValueError):
        # Settings of another shape than ours: nothing can be said of what is missing.
        return [], None
    there = {(record["folder"], *record["key"]) for record in records}
    lacking = [key for key in asked if key not in there]
    if lacking and (equal := _equal_weights(path)):
        # What equal weights give is stored once, under either name.
        known = {(folder, equal.get(model, model), *rest) for folder, model, *rest in there}
        dropped = {k for k in lacking if (k[0], equal.get(k[1], k[1]), *k[2:]) in known}
        asked = {key: words for key, words in asked.items() if key not in dropped}
        lacking = [key for key in lacking if key not in dropped]
    return [asked[key] for key in lacking], len(asked) or None


def _equal_weights(path: Path) -> dict[str, str]:
    """Return for each model of which files are recorded a text that is the same for equal files."""
    found = {}
    for record in sorted((path / "checkpoints").glob("[!.]*.json")):
        value = plain_json(record)
        if isinstance(value, dict) and value.get("files"):
            found[str(value.get("name"))] = json.dumps([value["files"], value.get("adapter")], sort_keys=True)
    return found


def _asked_cells(manifests: Sequence[Json], records: Sequence[Json]) -> dict[tuple[Any, ...], str]:
    tasks: dict[str, None] = {}
    seen = [record for record in records if record["folder"] == "cells"]
    for read in manifests[0].get("reads") or ():
        name = str(read["task"])
        members = [r["key"][1] for r in seen if r["task"].get("group") == name]
        tasks |= dict.fromkeys([*_leaves(name), *members] or [name])
    # A run of an older version does not say what it reads; one model tells what the others lack.
    tasks = tasks or dict.fromkeys(record["key"][1] for record in seen)
    return {
        ("cells", model, task): f"{model} on {task}" for model in manifests[0]["models"] for task in tasks
    }


@cache
def _leaves(name: str) -> tuple[str, ...]:
    # An unknown name's error holds the closest ones, which take long to find.
    if name not in _index():
        return ()
    try:
        return _index().leaves(name)
    except MambabenchError:
        return ()


@cache
def _index() -> TaskIndex:
    from mambabench.taskindex import TaskIndex

    return TaskIndex.load()


def _asked_long(manifests: Sequence[Json]) -> dict[tuple[Any, ...], str]:
    asked: dict[tuple[Any, ...], str] = {}
    for manifest in manifests:
        settings: Mapping[str, Any] = manifest["settings"]
        corpus = settings["corpus_sha256"]
        for model in manifest["models"]:
            if manifest["kind"] == "perplexity":
                asked["perplexity", model, corpus] = f"{model} on its text"
                continue
            for length in settings["lengths_tokens"]:
                for task in settings["tasks"]:
                    asked["recall", model, task, length] = f"{model} on {task} at {length:,} tokens"
                if corpus is not None:
                    asked["context-loss", model, corpus, length] = f"{model}'s loss after {length:,} tokens"
    return asked


def _missing_processes(manifests: Sequence[Json], records: Sequence[Json]) -> tuple[list[str], int | None]:
    """Compare with the digest of all points that a sweep's manifest holds.

    The first process of each point, by size and place in the sweep, gives the points in their order.
    """
    first = sorted((r for r in records if r["key"][2] == 0), key=lambda record: record["key"][:2])
    points: list[Json] = []
    for record in first:
        if record["point"] not in points:
            points.append(record["point"])
    processes = max(int(manifest["settings"]["processes"]) for manifest in manifests)
    missing: list[str] = []
    digests = {manifest["suite_sha256"] for manifest in manifests} - {""}
    if digests and digest({"points": points}) not in digests:
        missing += _sizes_missing(manifests, points) or ["some points"]
    # Points that another command asked for with fewer processes lack none, as nobody can tell.
    n_there = len({(json.dumps(r["point"], sort_keys=True), r["key"][2]) for r in records})
    n_expected = processes * len(points)
    if not missing and n_there < n_expected:
        lacking = n_expected - n_there
        missing.append(f"{lacking} {'process' if lacking == 1 else 'processes'} of {n_expected}")
    return missing, None if missing and n_there >= n_expected else n_expected


def _sizes_missing(manifests: Sequence[Json], points: Sequence[Json]) -> list[str]:
    there = {(point["model"], point["prompt_len_tokens"]) for point in points}
    asked = manifests[-1]
    return [
        f"{model} at {length:,} tokens"
        for length in asked["settings"]["prompt_len_tokens"]
        for model in asked["models"]
        if (model, length) not in there
    ]
