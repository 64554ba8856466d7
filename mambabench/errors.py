"""What can go wrong, as one tree; each class carries the process's exit code.

    MambabenchError                 3  (a run that could not be completed)
    ├── UsageError                  2  the command, a name or a file is wrong
    │   ├── UnknownNameError        2  a model, suite, task or metric that does not exist
    │   ├── ConfigError             2  a YAML file with one or more mistakes, all listed
    │   ├── MismatchError           2  two runs that asked different things are to be compared
    │   └── StoreError              2  results cannot be written, or are being written by another process
    ├── CellsFailedError            3  some cells of a run failed; the others are kept
    ├── NotANumberError             3  a model's output is not a number
    ├── CertificateError            3  the fast path errs more than the model as shipped
    ├── MissingError                4  something is needed that is not there
    │   ├── CheckpointError         4  no checkpoint there, or half of one, or a damaged or unsafe one
    │   ├── HubUnreachableError     4  the Hugging Face Hub did not answer
    │   ├── DataMissingError        4  a task's data set cannot be had
    │   ├── DeviceError             4  the requested device is not usable
    │   └── ExtraMissingError       4  an optional package is not installed
    └── GateFailedError             1  a threshold set by the user was not met

One handler (`mambabench.cli.main`) prints `error: <message> <hint>` on one line and exits with the code.

    >>> UnknownNameError.for_name("model", "mamba-14b", ["mamba-1.4b", "pythia-70m"]).hint
    'Closest: mamba-1.4b. `mambabench models` lists all.'
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import ClassVar, Self

EXIT_INTERRUPTED = 130


class MambabenchError(Exception):
    """Base of every error shown to the user as one line.

    Args:
        message: what is wrong, naming the thing that is wrong, without a trailing full stop.
        hint: the way out, as one or more sentences; may be empty.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        # A message that quotes another library's may end in a stop of its own.
        message = self.message.rstrip(".")
        stop = "" if message.endswith("?") else "."
        return f"{message}{stop} {self.hint}" if self.hint else self.message


class UsageError(MambabenchError):
    """The command line, a name or a file given by the user is wrong."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A model, suite, task or metric that does not exist."""

    @classmethod
    def for_name(cls, kind: str, name: str, known: Iterable[str], *, where: str = "") -> Self:
        """Build the error with the closest known names and the command that lists all of them.

        Args:
            kind: "model", "suite", "task" or "metric".
            name: what the user wrote.
            known: every name that would have been accepted.
            where: how to see all names; by default the command `mambabench <kind>s`.
        """
        close = closest(name, list(known))
        listing = where or f"`mambabench {kind}s` lists all."
        hint = f"Closest: {', '.join(close)}. {listing}" if close else listing
        return cls(f"unknown {kind} '{name}'", hint=hint)


class ConfigError(UsageError):
    """A file with mistakes; every mistake is reported at once.

    Args:
        source: the file.
        mistakes: one sentence each, naming the key.
    """

    def __init__(self, source: str, mistakes: Sequence[str], *, hint: str = "") -> None:
        self.source = source
        self.mistakes = tuple(mistakes)
        count = f"{len(self.mistakes)} mistake{'s' if len(self.mistakes) != 1 else ''}"
        listed = "; ".join(f"({i}) {m}" for i, m in enumerate(self.mistakes, 1))
        super().__init__(f"{source}: {count}: {listed}", hint=hint)


class MismatchError(UsageError):
    """Two runs do not hold the same items, prompts or settings, so that a comparison would mean nothing."""


class StoreError(UsageError):
    """Results cannot be written to the given place."""


class CellsFailedError(MambabenchError):
    """Some cells of a run failed unexpectedly; what finished is kept."""

    exit_code = 3

    @classmethod
    def counted(cls, n_failed: int, n_all: int, one: str, first: str, *, many: str = "") -> Self:
        """Build the error with the way out.

        Args:
            n_failed: of the run, at least 1.
            n_all: with those that did not fail.
            one: what each is.
            first: the first failure with its reason.
            many: what they are, where an "s" at the end does not say it.
        """
        if n_all == 1:
            return cls(f"the only {one} failed, {first}", hint="The same command tries it again.")
        kept = "The others are kept; the" if n_failed < n_all else "The"
        return cls(
            f"{n_failed} of {n_all} {many or one + 's'} failed, first {first}",
            hint=f"{kept} same command tries the failed ones again.",
        )


class NotANumberError(MambabenchError):
    """A model's logits or log-probabilities are not numbers: nothing can be said of it."""

    exit_code = 3


class CertificateError(MambabenchError):
    """The fast path errs more than the model as shipped, or it cannot be told whether it does."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str = "") -> None:
        way_out = "`--engine as-shipped` runs the model as shipped, `--no-verify` insists on the fast path."
        super().__init__(message, hint=hint or way_out)


class MissingError(MambabenchError):
    """Something is needed that is not there: weights, data, a device or a package."""

    exit_code = 4


class CheckpointError(MissingError):
    """No checkpoint in the given place, half of one, or a damaged or unsafe one."""


class HubUnreachableError(MissingError):
    """The Hugging Face Hub did not answer, or must not be asked (`HF_HUB_OFFLINE`)."""


class DataMissingError(MissingError):
    """A task's data set cannot be had from the data directory, the cache or the Hub."""


class DeviceError(MissingError):
    """The requested device cannot be used."""


class ExtraMissingError(MissingError):
    """An optional package is needed and not installed."""


class GateFailedError(MambabenchError):
    """A threshold set by the user was not met."""

    exit_code = 1


def closest(name: str, known: Sequence[str], *, count: int = 3) -> list[str]:
    """Return up to `count` known names that look most like `name`, best first."""
    lowered = {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=count, cutoff=0.6)
    return [lowered[n] for n in near]
