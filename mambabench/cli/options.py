"""What several commands share: checked option types and JSON output."""

from __future__ import annotations

import json
from typing import Any

import click


def positive_int(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Parse a whole number from 1 up, naming the option and the value when it is none.

    Raises:
        UsageError: for 0, negative numbers and text.
    """
    from mambabench.errors import UsageError

    if value is None:
        return None
    name = param.opts[-1]
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise UsageError(
            f"{name} '{value}' is not a whole number from 1 up", hint=f"Leave {name} out for the default."
        )
    return number


def print_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
