"""What several commands share: checked option types and JSON output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

_SMALLEST_BUDGET_BYTES = 16_000_000


def positive_int(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Parse a whole number from 1 up, naming the option and the value when it is none.

    Raises:
        UsageError: for 0, negative numbers and text.
    """
    from mambabench.errors import UsageError

    if value is None:
        return None
    name = param.opts[0]
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        hint = "Write a number such as 512." if param.required else f"Leave {name} out for the default."
        raise UsageError(f"{name} '{value}' is not a whole number from 1 up", hint=hint)
    return number


def byte_size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Parse a size such as 256MB or 2GiB.

    Raises:
        UsageError: for text that is no size, and for less than 16 MB, which no forward fits into.
    """
    from mambabench.errors import UsageError
    from mambabench.units import parse_bytes

    if value is None:
        return None
    name = param.opts[0]
    try:
        size = parse_bytes(value)
    except ValueError as error:
        raise UsageError(f"{name} '{value}' is not a size", hint="Write 256MB or 2GiB.") from error
    if size < _SMALLEST_BUDGET_BYTES:
        raise UsageError(f"{name} {value} is too small for any forward", hint="Give it 16MB or more.")
    return size


def not_empty(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse the empty text that a shell variable leaves when it is not set.

    Raises:
        UsageError: naming the option.
    """
    from mambabench.errors import UsageError

    if value is not None and not value.strip():
        name = param.opts[0]
        raise UsageError(f"{name} is empty", hint="Give it a value, or drop the option for its default.")
    return value


def some_path(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """Parse a path; an empty one, which would silently mean the current directory, is refused.

    Raises:
        UsageError: naming the option.
    """
    text = not_empty(ctx, param, value)
    return None if text is None else Path(text)


def check_directory(path: Path, option: str = "--plot", holds: str = "all figures") -> None:
    """Check before anything slow that files can be written into a directory; leaves nothing behind.

    Args:
        path: need not exist.
        option: that names it.
        holds: what is written into it.

    Raises:
        UsageError: it, or what it would be made in, is no directory or cannot be written to.
    """
    import tempfile

    from mambabench.errors import UsageError

    there = path.absolute()
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        if not there.is_dir():
            raise UsageError(f"{there} is no directory", hint=f"`{option}` names a directory for {holds}.")
        # Asked of the system by writing: permissions alone do not tell of every file system.
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise UsageError(
            f"{there} cannot be written to: {error.strerror}", hint=f"Name another directory for `{option}`."
        ) from error


def print_json(value: Any) -> None:
    """Write one JSON document to stdout, with escapes where its encoding has not all letters."""
    plain = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    click.echo(json.dumps(value, indent=2, ensure_ascii=plain, allow_nan=False))
