"""A digest of a task's configuration that is the same on every machine.

Functions enter as their name and the digest of the file that defines them, helpers included; where the
YAML lies and what a group calls the task do not enter.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from mambabench.fingerprint import digest, file_sha256

_LEFT_OUT = {"task_alias", "tag", "group"}


def config_sha256(task: Any) -> str:
    """Return the digest of an lm-eval task's configuration and, for a Python task, of its class."""
    config = task.config
    plain = asdict(config) if is_dataclass(config) and not isinstance(config, type) else dict(config)
    plain = {k: v for k, v in plain.items() if k not in _LEFT_OUT}
    metadata = plain.get("metadata")
    if isinstance(metadata, dict):
        plain["metadata"] = {k: v for k, v in metadata.items() if k != "config_source"}
    bases = [c for c in type(task).__mro__ if not c.__module__.startswith(("lm_eval.api", "mambabench"))]
    own = [_canonical(c) for c in bases if c.__module__ not in ("builtins", "abc")]
    return digest({"config": _canonical(plain), "classes": own})


def _canonical(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value if value == value and value not in (float("inf"), float("-inf")) else repr(value)
    if isinstance(value, dict):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(v) for v in value]
    if isinstance(value, set | frozenset):
        return sorted(str(v) for v in value)
    if isinstance(value, functools.partial):
        return [_canonical(value.func), _canonical(value.args), _canonical(value.keywords)]
    if callable(value):
        value = inspect.unwrap(value)
        return {"name": getattr(value, "__qualname__", type(value).__name__), "file": _source_sha256(value)}
    return type(value).__qualname__


def _source_sha256(value: Any) -> str:
    try:
        path = inspect.getsourcefile(
            value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
        )
    except TypeError:
        return ""
    return _file_sha256(path) if path else ""


@functools.cache
def _file_sha256(path: str) -> str:
    file = Path(path)
    return file_sha256(file) if file.is_file() else ""
