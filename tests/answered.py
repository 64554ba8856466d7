"""Logs of answers for tests, and what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mambabench.fingerprint import digest
from mambabench.store.answers import AnswerLog

CHECKPOINT = digest("checkpoint")


def key(number: int) -> str:
    return digest(["request", number])


def answer(number: int) -> dict[str, Any]:
    return {"logprob": -number / 7, "is_greedy": number % 2 == 0}


def pairs(*numbers: int) -> list[tuple[str, dict[str, Any]]]:
    return [(key(n), answer(n)) for n in numbers]


def reopened(folder: Path, checkpoint: str = CHECKPOINT, settings_key: str = "fp32") -> AnswerLog:
    return AnswerLog(folder, checkpoint, settings_key)


def contents(log: AnswerLog, numbers: range = range(50)) -> dict[int, Any]:
    found = {n: log.get(key(n)) for n in numbers}
    return {n: value for n, value in found.items() if value is not None}
