"""One stored run in words: what was asked for, what computed it, what is there, and how to go on.

    render_details(details_of(Path("results/zeroshot-smoke-mamba-tiny-75c8b06c")), sys.stdout)

`details_of` gives plain data with texts as they were read; the rendering makes them harmless.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from mambabench.errors import StoreError
from mambabench.schema import CheckpointRecord
from mambabench.store.files import read_record
from mambabench.store.manage import same_runs
from mambabench.store.overview import overview
from mambabench.store.seal import SEAL
from mambabench.store.usage import usage_of
from mambabench.tables.compare.format import harmless, shortened
from mambabench.tables.console import console_on
from mambabench.tables.runs import STYLES, done
from mambabench.units import size

if TYPE_CHECKING:
    from mambabench.store.overview import Overview

Json = dict[str, Any]

_WIDTH_OF_FILES: Final = 160
_MOST_NAMED: Final = 30
_MOST_LETTERS: Final = 200
_PACKAGES: Final = ("mambabench", "torch", "transformers", "lm-eval", "numba", "mamba-ssm", "causal-conv1d")
_STATES: Final[Mapping[str, str]] = {
    "complete": "all that was asked for is there",
    "partial": "all that was asked for is there, which was only some of the items",
    "interrupted": "not all that was asked for is there",
    "failed": "all that was asked for was tried, and some of it failed",
    "empty": "it was begun and holds no result",
    "running": "it is being written at the moment",
    "unreadable": "part of it cannot be read",
}


def details_of(path: Path) -> Json:
    """Read all that can be said of a run without its items; what cannot be read is among its problems."""
    run = overview(path)
    usage = usage_of(path)
    checkpoints, problems = _checkpoints(path)
    return {
        "path": str(path),
        "name": path.name,
        "state": run.state,
        "done": done(run),
        "n_results": run.n_ok,
        "n_expected": run.n_expected,
        "size_bytes": run.size_bytes,
        "written_by": run.written_by,
        "manifest": {"environment": {}, **run.manifests[0]} if run.manifests else None,
        "resumptions": [{"environment": {}, **manifest} for manifest in run.manifests[1:]],
        "commands": [manifest["command"] for manifest in run.manifests],
        "go_on": go_on(run),
        "checkpoints": checkpoints,
        "results": [_result(record) for record in run.records],
        "missing": list(run.missing),
        "problems": [*run.problems, *problems],
        "files": {
            kind: {"n_files": taken.n_files, "size_bytes": taken.size_bytes}
            for kind, taken in usage.by_kind.items()
        },
        "unknown_files": list(usage.unknown),
        "sealed": (path / SEAL).exists(),
        "copies": [str(other) for other in same_runs(path)],
    }


def go_on(run: Overview) -> list[str]:
    """Return the command that finishes a run or finds all of it there; empty where there is none.

    It is the last one that was typed. Where its results would go to another directory from here than the one
    that the run lies in, that directory is named.
    """
    if not run.manifests or run.kind == "imported" or not run.manifests[-1]["command"]:
        return []
    command = list(run.manifests[-1]["command"])
    typed = "results"
    for place, word in enumerate(command):
        if word == "--out" and place + 1 < len(command):
            typed = command[place + 1]
            rest = [*command[:place], *command[place + 2 :]]
            break
        if word.startswith("--out="):
            typed = word.removeprefix("--out=")
            rest = [*command[:place], *command[place + 1 :]]
            break
    else:
        rest = command
    try:
        same = Path(typed).expanduser().resolve() == run.path.parent.resolve()
    except (OSError, ValueError, RuntimeError):
        same = False
    return command if same else [*rest, "--out", str(run.path.parent)]


def _checkpoints(path: Path) -> tuple[list[Json], list[str]]:
    found, problems = [], []
    for record in sorted((path / "checkpoints").glob("[!.]*.json")):
        try:
            found.append(read_record(record, CheckpointRecord, remedy="").model_dump(mode="json"))
        except StoreError as error:
            problems.append(error.message.replace(str(record), f"checkpoints/{record.name}"))
    return found, problems


def _result(record: Json) -> Json:
    """Return what a record is about and what became of it."""
    folder, key = record["folder"], record["key"]
    if folder == "cells":
        model, what = key[0], key[1]
    elif folder == "replicates":
        point = record["point"]
        model = str(point["model"])
        what = (
            f"{point.get('arm')}, batch {point['batch_size']}, {point['prompt_len_tokens']} + "
            f"{point['gen_len_tokens']} tokens, process {record['replicate']}"
        )
    elif folder == "recall":
        model, what = key[0], f"{key[1]} at {key[2]} tokens"
    else:
        model, what = key[0], str(record["corpus"].get("name"))
        if folder == "context-loss":
            what = f"loss on {what} after {key[2]} tokens"
    detail = record.get("error") or record.get("detail") or ""
    return {"kind": folder, "model": model, "what": what, "status": record["status"], "detail": str(detail)}


def render_details(details: Json, out: TextIO) -> None:
    """Write a run's details."""
    console = console_on(out, _WIDTH_OF_FILES)
    console.print(harmless(details["path"]), style="bold", soft_wrap=True)
    state = details["state"]
    console.print(_line("state", f"{state}: {_STATES[state]}"), style=STYLES.get(state, ""), soft_wrap=True)
    for name, text in _facts(details):
        console.print(_line(name, text), soft_wrap=True)


def _line(name: str, text: str) -> str:
    return f"  {name:<13}{harmless(text)}"


def _facts(details: Json) -> Iterator[tuple[str, str]]:
    """Yield names and texts of the lines; a line without a name goes on with the one before."""
    if details["written_by"]:
        yield "written by", details["written_by"]
    manifest = details["manifest"]
    if manifest is not None:
        yield "results", details["done"]
        yield from _asked(manifest)
    yield from _listed("checkpoints", [_checkpoint(record) for record in details["checkpoints"]])
    if manifest is not None:
        yield from _environment(manifest["environment"])
        yield "command", shlex.join(manifest["command"]) or "none: it was not made by one"
        resumed = [_resumed(manifest, later) for later in details["resumptions"]]
        yield from _listed("resumed", resumed)
        yield from _listed("holds", _by_model(details["results"], manifest["models"]))
    failed = [r for r in details["results"] if r["detail"]]
    yield from _listed("said", [f"{r['model']}, {r['what']}: {r['status']}: {r['detail']}" for r in failed])
    yield from _listed("missing", details["missing"])
    yield from _listed("problems", details["problems"])
    kinds = [
        f"{kind} {size(taken['size_bytes'])} in {taken['n_files']:,}"
        for kind, taken in details["files"].items()
        if taken["size_bytes"]
    ]
    yield "files", f"{size(details['size_bytes'])}: {', '.join(kinds)}"
    yield from _listed("not ours", details["unknown_files"])
    yield (
        "seal",
        f"{SEAL} is there" if details["sealed"] else "none; `mambabench runs verify --seal` makes it",
    )
    yield from _listed("copies", details["copies"])
    if details["go_on"]:
        unfinished = details["state"] in ("interrupted", "failed", "empty")
        yield ("to go on" if unfinished else "again"), shlex.join(details["go_on"])


def _asked(manifest: Json) -> Iterator[tuple[str, str]]:
    yield "kind", manifest["kind"]
    yield "made", manifest["created_utc"].replace("T", " ")
    if manifest["suite"]:
        yield "suite", manifest["suite"]
    reads = [str(r.get("task")) for r in manifest.get("reads") or () if isinstance(r, dict)]
    if reads:
        yield "tasks", ", ".join(reads)
    yield "models", ", ".join(manifest["models"])
    settings = {
        name.removesuffix("_tokens").replace("_", " "): value
        for name, value in manifest["settings"].items()
        if value not in (None, False, [], "") and name != "files"
    }
    yield "settings", "; ".join(f"{name} {_plain(value)}" for name, value in settings.items())
    yield "identity", manifest["identity"]


def _plain(value: Any) -> str:
    if value is True:
        return "yes"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _checkpoint(record: Json) -> str:
    parts = [
        f"{record['name']}: {record['weights']}, {record['n_parameters']:,} parameters",
        f"{record['dtypes'].get('matmul', '')} on {record['device_name']}",
        record["kernel_path"] or record["implementation"],
    ]
    if record["hub_id"]:
        parts.append(f"{record['hub_id']}@{record['revision']}")
    if record["adapter"]:
        parts.append(f"adapter {record['adapter']['name']}")
    digests = [f"{file['name']} sha256 {file['sha256'][:16]}" for file in record["files"]]
    certificate = record["certificate"]
    if certificate is None:
        parts.append("no certificate")
    else:
        passed = "passed" if certificate["passed"] else "FAILED"
        parts.append(
            f"certificate {passed}: ratio {certificate['ratio']:.2f} of at most {certificate['bar']}"
        )
    return "; ".join([*parts, *digests])


def _environment(environment: Json) -> Iterator[tuple[str, str]]:
    packages = environment.get("packages")
    packages = packages if isinstance(packages, dict) else {}
    named = [f"{name} {packages[name]}" for name in _PACKAGES if packages.get(name)]
    if python := environment.get("python"):
        named.append(f"Python {python}")
    if named:
        yield "software", ", ".join(named)
    processor, gpus = environment.get("processor"), environment.get("gpus")
    parts = [str(environment["system"])] if environment.get("system") else []
    if isinstance(processor, dict) and processor.get("name"):
        parts.append(f"{processor['name']}, {processor.get('physical_cores')} cores")
    if isinstance(gpus, list):
        parts += [str(gpu.get("name", gpu)) if isinstance(gpu, dict) else str(gpu) for gpu in gpus]
    if isinstance(memory := environment.get("memory_bytes"), int):
        parts.append(size(memory))
    if parts:
        yield "machine", "; ".join(parts)
    git = environment.get("git")
    if isinstance(git, dict) and git.get("commit"):
        yield "commit", f"{git['commit']}{', with changes' if git.get('modified') else ''}"


def _resumed(first: Json, later: Json) -> str:
    """Say when and how a run was taken up again, and what was different then."""
    before, after = dict(_environment(first["environment"])), dict(_environment(later["environment"]))
    changed = [f"{name} {text}" for name, text in after.items() if before.get(name) != text]
    command = shlex.join(later["command"]) if later["command"] != first["command"] else "the same command"
    return "; ".join([f"{later['created_utc'].replace('T', ' ')}: {command}", *changed])


def _by_model(results: Sequence[Json], models: Sequence[str]) -> list[str]:
    lines: dict[tuple[str, str], dict[str, list[str]]] = {}
    place = {model: number for number, model in enumerate(models)}
    for result in sorted(results, key=lambda result: place.get(result["model"], len(place))):
        by_status = lines.setdefault((result["model"], result["kind"]), {})
        by_status.setdefault(result["status"], []).append(result["what"])
    return [
        f"{model}, {kind}: "
        + "; ".join(
            f"{len(what):,} {status} ({shortened(', '.join(what), _MOST_LETTERS)})"
            for status, what in by_status.items()
        )
        for (model, kind), by_status in lines.items()
    ]


def _listed(name: str, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    for place, text in enumerate(texts[:_MOST_NAMED]):
        yield (name if place == 0 else ""), text
    if len(texts) > _MOST_NAMED:
        yield "", f"and {len(texts) - _MOST_NAMED:,} more: `--json` has all"
