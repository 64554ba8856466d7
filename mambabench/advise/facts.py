"""What is known of runs besides their figures: the machine, its memory, and how models were named.

>>> RunFacts(processor="a processor", memory_bytes=8).device("cpu")
('a processor', 8)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mambabench.frames.load import LoadedRun
    from mambabench.schema import RunManifest

_MODEL = "--model"


@dataclass(frozen=True)
class RunFacts:
    """One run's machine and how it was made."""

    kind: str = ""
    processor: str = ""
    memory_bytes: int | None = None
    """Of the machine; None where it was not recorded."""
    gpus: tuple[tuple[str, int | None], ...] = ()
    """Name and memory of each."""
    budget_bytes: int | None = None
    """Emulated memory; None for none."""
    out: str = "results"
    """Directory that it is kept in."""
    weights: str = ""
    """"pretrained" or "random"; empty where that is not recorded."""
    typed: Mapping[str, str] = field(default_factory=dict)
    """By a model's name: how it was named on the command line."""

    def device(self, device: str) -> tuple[str, int | None]:
        """Return the name and the memory of a device such as "cuda:0"; empty and None where not recorded."""
        if device == "cpu":
            return self.processor, self.memory_bytes
        index = device.partition(":")[2] or "0"
        if index.isdecimal() and int(index) < len(self.gpus):
            return self.gpus[int(index)]
        return "", None


def facts_of(runs: Iterable[LoadedRun]) -> dict[str, RunFacts]:
    """Return what the manifests of runs say, by the runs' names."""
    return {run.name: _facts(run.manifest, str(run.path.parent)) for run in runs if run.manifest is not None}


def _facts(manifest: RunManifest, out: str) -> RunFacts:
    environment = manifest.environment
    processor = environment.get("processor")
    gpus = environment.get("gpus")
    settings = manifest.settings
    return RunFacts(
        kind=manifest.kind,
        processor=_text(processor.get("name")) if isinstance(processor, dict) else "",
        memory_bytes=_bytes(environment.get("memory_bytes")),
        gpus=tuple(
            (_text(gpu.get("name")), _bytes(gpu.get("memory_bytes")))
            for gpu in (gpus if isinstance(gpus, list) else [])
            if isinstance(gpu, dict)
        ),
        budget_bytes=getattr(settings, "budget_bytes", None),
        out=out,
        weights=getattr(settings, "weights", ""),
        typed=typed_names(manifest.command, manifest.models),
    )


def typed_names(command: Sequence[str], models: Sequence[str]) -> dict[str, str]:
    """Return how models were named on a command line: a table's short name of a directory finds nothing.

    >>> typed_names(["mambabench", "latency", "--model", "out/step-10", "--model=mamba-130m"], ["step-10"])
    {'step-10': 'out/step-10'}
    """
    given = []
    for word, after in zip(command, [*command[1:], ""], strict=True):
        if word == _MODEL:
            given.append(after)
        elif word.startswith(f"{_MODEL}="):
            given.append(word.partition("=")[2])
    found: dict[str, str] = {}
    for model in models:
        fitting = {text for text in given if model in (text, _short(text))}
        # Two directories of one name: neither is known to be the one that is meant.
        if len(fitting) == 1:
            found[model] = fitting.pop()
    return found


def _short(text: str) -> str:
    return PurePath(text.removeprefix("hf:")).name.removesuffix(".gguf")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _bytes(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
