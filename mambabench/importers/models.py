"""What lm-eval was told to load: a short name for tables, and what makes two of them the same checkpoint.

>>> named([Loaded("hf", {"pretrained": "EleutherAI/pythia-v1.1-160m", "revision": "step1000"})])
['pythia-160m@step1000']
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from typing import Any, Final

from mambabench.fingerprint import digest
from mambabench.registry import load_registry

_BASE: Final = ("pretrained", "model", "path", "engine")
"""Arguments that name the checkpoint, in the order in which lm-eval looks for them."""
_OVER: Final = ("peft", "delta")
"""Arguments that name what is laid over it."""
_WHERE: Final = frozenset(
    {
        "batch_size", "max_batch_size", "device", "parallelize", "use_accelerate", "device_map_option",
        "max_memory_per_gpu", "max_cpu_memory", "offload_folder", "trust_remote_code", "low_cpu_mem_usage",
        "tensor_parallel_size", "data_parallel_size", "gpu_memory_utilization", "num_concurrent",
        "max_retries", "logits_cache",
    }
)  # fmt: skip
"""Arguments that say where and how fast, not what."""
_HUB: Final = re.compile(r"[\w.-]+/[\w.-]+")
_FIRST_NAME: Final = re.compile(r"(EleutherAI/pythia)-v1\.1-(.+)")
"""The Pythia models of today were evaluated under this name, before they took the place of the first ones,
which have been called v0 since."""


@dataclass(frozen=True)
class Loaded:
    """A model as the files describe it."""

    source: str
    """lm-eval's kind of model, for example "hf"."""
    arguments: Mapping[str, str]
    fingerprint: str = ""
    """Of the checkpoint, where the files know it: those that mambabench itself has exported do."""
    step: str = ""
    """Of the training, where only the file's name says it."""
    fallback: str = ""
    """Name for where no argument gives one."""
    key: str = field(init=False)
    """Equal for the same checkpoint loaded in the same way."""

    def __post_init__(self) -> None:
        """Compute the key from what changes an answer."""
        told = {k: v for k, v in self.arguments.items() if k not in _WHERE}
        name = "" if self._base else self.fallback
        what = {"source": self.source, "arguments": told, "step": self.step, "name": name}
        object.__setattr__(self, "key", self.fingerprint or digest({"imported": what}))

    @property
    def _base(self) -> str:
        return next((self.arguments[k] for k in _BASE if self.arguments.get(k)), "")

    @property
    def short(self) -> str:
        """The name for tables; others may have the same."""
        over = [_short(self.arguments[k]) for k in _OVER if self.arguments.get(k)]
        name = "+".join(
            [_short(self._base) if self._base else self.fallback or self.source or "model", *over]
        )
        revision = self.arguments.get("revision") or self.step
        return f"{name}@{revision}" if revision else name


def arguments_of(given: Any) -> dict[str, str]:
    """Return lm-eval's model arguments by name, from either form in which they are written.

    >>> arguments_of("pretrained=a/b,revision=step0")
    {'pretrained': 'a/b', 'revision': 'step0'}
    """
    if isinstance(given, Mapping):
        return {str(k): str(v) for k, v in given.items() if v is not None}
    if not isinstance(given, str):
        return {}
    parts = [part.partition("=") for part in given.split(",") if part.strip()]
    return {name.strip(): value.strip() for name, _, value in parts}


def named(models: Sequence[Loaded]) -> list[str]:
    """Return a name for each model, the same for the same checkpoint and different for different ones."""
    by_name: dict[str, dict[str, Loaded]] = defaultdict(dict)
    for model in models:
        by_name[model.short].setdefault(model.key, model)
    names: dict[str, str] = {}
    for short, same in by_name.items():
        arguments = {key: dict(m.arguments, source=m.source) for key, m in same.items()}
        all_names = sorted({name for mine in arguments.values() for name in mine} - _WHERE)
        differ = [n for n in all_names if len({mine.get(n) for mine in arguments.values()}) > 1]
        for number, (key, mine) in enumerate(arguments.items(), 1):
            told = ", ".join(f"{n}={mine[n]}" for n in differ if n in mine) or ("" if differ else str(number))
            names[key] = f"{short} ({told})" if len(same) > 1 and told else short
    return [names[model.key] for model in models]


def _short(text: str) -> str:
    """Return a checkpoint's name: the registered one, a Hub id as it is, the last part of a path."""
    renamed = _FIRST_NAME.sub(r"\1-\2", text)
    if renamed in _registered():
        return _registered()[renamed]
    if _HUB.fullmatch(text) and not text.startswith("."):
        return text
    return PurePosixPath(text.replace("\\", "/")).name or text


@cache
def _registered() -> dict[str, str]:
    return {spec.hub_id: spec.name for spec in load_registry().values() if spec.hub_id}
