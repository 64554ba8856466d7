"""Which commands would settle what the stored runs leave open.

A candidate that one bound has ruled out needs no more. The others are measured at the wish itself, in their
own setting, several models by one command where all else is the same.

    to_measure(candidates, chosen, rows, frames, facts, wish)[0].text
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from mambabench.advise.facts import RunFacts
from mambabench.advise.result import Candidate, Check, Measurement
from mambabench.advise.rows import Row
from mambabench.advise.wish import Wish
from mambabench.stats.replicates import N_FOR_INTERVAL
from mambabench.suite_file import shipped
from mambabench.tables.speed.flags import NOT_CERTIFIED

Values = Mapping[str, Any]
What = Literal["times and memory", "recall", "average accuracy"]

_OPEN: Final = ("unknown", "doubt")
_DEFAULT_OUT: Final = "results"
_MORE_SAMPLES = 4
_ACCURACY: Final = "accuracy"


@dataclass(frozen=True)
class _Asked:
    """A command without its models."""

    what: What
    name: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class _Known:
    """What commands are made of besides candidates."""

    rows: Sequence[Row]
    frames: Mapping[str, Sequence[Values]]
    facts: Mapping[str, RunFacts]
    wish: Wish

    def runs_of(self, candidate: Candidate) -> list[str]:
        """Return the runs that know a model, those that timed it first."""
        timed = [row.run for row in self.rows if row.label == candidate.label]
        others = [
            row["run"] for rows in self.frames.values() for row in rows if row["label"] == candidate.label
        ]
        return list(dict.fromkeys([*timed, *others]))

    def typed(self, candidate: Candidate) -> str:
        """Return how a model is named on a command line."""
        names = (self.facts.get(run, RunFacts()).typed for run in self.runs_of(candidate))
        return next((found[candidate.model] for found in names if candidate.model in found), candidate.model)

    def out(self, candidate: Candidate) -> tuple[str, ...]:
        """Return the option that keeps a run beside the others."""
        found = next((self.facts[run].out for run in self.runs_of(candidate) if run in self.facts), "")
        return ("--out", found) if found not in ("", _DEFAULT_OUT) else ()


def to_measure(
    candidates: Sequence[Candidate],
    chosen: Candidate | None,
    rows: Sequence[Row],
    frames: Mapping[str, Sequence[Values]],
    facts: Mapping[str, RunFacts],
    wish: Wish,
) -> tuple[Measurement, ...]:
    """Return the commands that would settle what is open, those about the chosen candidate first.

    Args:
        candidates: in the order in which they matter.
        chosen: the recommended one, if any.
        rows: of all sweeps.
        frames: the other frames' rows as plain values.
        facts: by run.
        wish: what is asked for.
    """
    known = _Known(rows, frames, facts, wish)
    asked: dict[_Asked, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.state not in _OPEN:
            continue
        # Others that leave a doubt would only be measured to replace one that fits.
        if chosen is not None and candidate is not chosen and candidate.state == "doubt":
            continue
        for one in _commands(candidate, known):
            asked.setdefault(one, []).append(candidate)
    if not candidates:
        options = (*_lengths(wish), "--processes", str(N_FOR_INTERVAL))
        asked[_Asked("times and memory", "latency", options)] = []
    return tuple(_measurement(one, models, known) for one, models in asked.items())


def _measurement(asked: _Asked, candidates: Sequence[Candidate], known: _Known) -> Measurement:
    typed = dict.fromkeys(known.typed(candidate) for candidate in candidates)
    names = list(dict.fromkeys(candidate.model for candidate in candidates))
    models = [word for name in typed for word in ("--model", name)]
    whose = f"{asked.what} of {', '.join(names)}" if names else f"{asked.what} of the models by default"
    return Measurement(("mambabench", asked.name, *models, *asked.options), whose)


def _commands(candidate: Candidate, known: _Known) -> Iterable[_Asked]:
    sweep = [check for check in candidate.checks if check.bound in ("memory", "ttft", "tpot")]
    if any(check.state in _OPEN for check in sweep):
        yield _latency(candidate, sweep, known)
    recall, quality = candidate.check("recall"), candidate.check("quality")
    if recall is not None and recall.state in _OPEN:
        yield _longcontext(candidate, recall, known)
    # A doubt about an average is of its items, of which there are no more.
    if quality is not None and quality.state == "unknown" and quality.figure is None:
        yield _zeroshot(candidate, known)


def _latency(candidate: Candidate, checks: Sequence[Check], known: _Known) -> _Asked:
    setting = candidate.setting
    own = [row for row in known.rows if (row.label, row.setting) == (candidate.label, setting)]
    settled = [c.figure for c in checks if c.figure is not None and c.figure.kind == "measured"]
    n_processes = N_FOR_INTERVAL
    if settled and max(figure.n for figure in settled) >= N_FOR_INTERVAL:
        n_processes = 2 * max(figure.n for figure in settled)
    options = [*_lengths(known.wish)]
    if setting.device:
        # A forward that disagrees with its reference does so again.
        arm = "shipped" if any(NOT_CERTIFIED in row.flags for row in own) else setting.arm
        options += ["--arm", arm, "--dtype", setting.dtype, "--device", setting.device]
    if setting.attention not in ("", "none", "sdpa"):
        options += ["--attention", setting.attention]
    if setting.prefill_chunk_tokens:
        options += ["--prefill-chunk", str(setting.prefill_chunk_tokens)]
    if any(known.facts.get(row.run, RunFacts()).weights == "random" for row in own):
        options += ["--weights", "random"]
    options += ["--processes", str(n_processes), *known.out(candidate)]
    return _Asked("times and memory", "latency", tuple(options))


def _lengths(wish: Wish) -> tuple[str, ...]:
    return (
        "--prompt-len", str(wish.prompt_len_tokens),
        "--gen-len", str(wish.gen_len_tokens),
        "--batch-size", str(wish.conversations),
    )  # fmt: skip


def _longcontext(candidate: Candidate, recall: Check, known: _Known) -> _Asked:
    rows = [row for row in known.frames["recall"] if row["metric"] == _ACCURACY]
    own = [row for row in rows if row["label"] == candidate.label or row["model"] == candidate.model]
    tasks = sorted({row["task"] for row in own or rows})
    lengths = [known.wish.length_tokens]
    samples = max((row["n_samples"] or 0 for row in own or rows), default=0)
    if recall.close:
        # Lengths that are measured stay; more samples of each narrow all intervals.
        above = min((n for row in own if (n := row["length_tokens"]) >= lengths[0]), default=lengths[0])
        lengths = sorted({n for row in own if (n := row["length_tokens"]) <= above} | {above})
        samples *= _MORE_SAMPLES
    options = [word for task in tasks for word in ("--task", task)]
    options += ["--lengths", ",".join(map(str, lengths)), "--no-cost"]
    options += ["--samples", str(samples)] if samples else []
    if candidate.setting.dtype:
        options += ["--dtype", candidate.setting.dtype, "--device", candidate.setting.device]
    return _Asked("recall", "longcontext", (*options, *known.out(candidate)))


def _zeroshot(candidate: Candidate, known: _Known) -> _Asked:
    """Ask for what most averages are over, as only those over the same tasks can be compared."""
    suites = Counter(row["suite"] for row in known.frames["averages"] if row["suite"])
    suite = max(suites, key=lambda name: (suites[name], name)) if suites else ""
    if suite in shipped():
        options = ["--suite", suite]
    else:
        tasks = sorted({row["task"] for row in known.frames["scores"] if suite and row["suite"] == suite})
        options = [word for task in tasks for word in ("--task", task)]
    if candidate.setting.dtype:
        options += ["--dtype", candidate.setting.dtype, "--device", candidate.setting.device]
    return _Asked("average accuracy", "zeroshot", (*options, *known.out(candidate)))
