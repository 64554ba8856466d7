"""`mambabench compare`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mambabench.cli.compare_options import (
    ASKED,
    EVALUATED,
    evaluation_options,
    statistics_options,
    typed,
)
from mambabench.cli.options import check_directory, not_empty, print_json, some_path
from mambabench.cli.run_options import AS_JSON

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mambabench.cli.compare_sides import Found
    from mambabench.compare.gate_grammar import Gate, GateResult
    from mambabench.compare.result import CompareOptions, Side
    from mambabench.errors import MambabenchError

_EXAMPLES_OF_ONE = 2


@click.command(
    name="compare",
    short_help="Compare models or runs: which is better, and how sure is that.",
    epilog="""\b
Examples:
  mambabench compare mamba-tiny pythia-tiny --suite smoke
  mambabench compare base=./base ./ft-lr5e-5 ./ft-lr5e-4 --task hellaswag --task piqa
  mambabench compare results/zeroshot-mamba-paper-base-1f0c3a2b new=results/zeroshot-mamba-paper-ft-99ab01cd
  mambabench compare results/both#mamba-130m results/both#pythia-160m --plot figures --export items
  mambabench compare base ft --fail-if 'hellaswag < -1pt' --fail-if 'any < -3pt' --fail-when certain
  mambabench compare results/latency-before results/latency-after --fail-if 'tpot > +5%'
  mambabench compare --checkpoints 'out/checkpoint-*' --task piqa --plot curves
""",
)
@click.argument("texts", nargs=-1, metavar="[SIDE]...")
@click.option(
    "--baseline", callback=not_empty, metavar="LABEL",
    help="Side that the others are held against. [default: the first]",
)  # fmt: skip
@click.option(
    "--checkpoints", "patterns", multiple=True, metavar="PATTERN",
    help="Lay the checkpoints or runs that match out over their training steps; may be repeated.",
)  # fmt: skip
@click.option(
    "--fail-if", "gates", multiple=True, metavar="'NAME < -1pt'",
    help="End with exit code 1 when a candidate has changed so much; may be repeated. NAME is a task, any, "
    "overall, or a figure of a sweep, as in 'lambada_openai.perplexity > 3%' or 'ttft@4096 > 10%'.",
)  # fmt: skip
@click.option(
    "--fail-when", type=click.Choice(["estimate", "certain"]), default="estimate", show_default=True,
    help="certain: only where the whole 95% interval lies beyond the threshold.",
)  # fmt: skip
@statistics_options
@evaluation_options
@click.option(
    "--examples", "n_examples", type=click.IntRange(min=0), metavar="N",
    help="Items shown of each kind and candidate. [default: 2 of one candidate, else 1]",
)  # fmt: skip
@click.option(
    "--export", callback=some_path, metavar="DIR",
    help="Write every item of both sides, all contrasts, categories and calibration into DIR as Parquet.",
)  # fmt: skip
@click.option("--plot", callback=some_path, metavar="DIR", help="Draw all figures into DIR, as PNG and SVG.")
@AS_JSON
@click.pass_context
def command(context: click.Context, /, **given: Any) -> int:
    """Hold candidates against a baseline, item by item: which is better, by how much, and how sure is that.

    A SIDE is a run's directory, RUN#MODEL for one of its models, or a model, which is then evaluated first,
    as `mambabench zeroshot` does and in the same runs; LABEL=SIDE names it. The table holds each difference
    with its 95% interval, items won and lost, p-values adjusted for the number of tests, the smallest
    difference that so many items could show, and a verdict: better, worse, equivalent within the margin, or
    not distinguishable. Results of other programs are made into runs by `mambabench import`.

    With --checkpoints all sides are laid out over their training steps: how each metric went, which step is
    the best, and which may be as good. Runs of latency, throughput, memory and conversation are compared by
    ratios over their processes.
    """
    wish = _Wish.of(given)
    found, options = _sides(context, given, wish)
    examples = given["n_examples"] is not None
    said = _compared(found, options, wish, curves=bool(given["patterns"]), examples=examples)
    said.show(found, wish)
    return 0


@dataclass(frozen=True)
class _Wish:
    """What is to become of a comparison."""

    gates: Sequence[Gate]
    baseline: str | None
    fail_when: Any
    export: Path | None
    plot: Path | None
    as_json: bool
    tasks: tuple[str, ...]
    """That are laid out over training steps; all of them where there are none."""

    @classmethod
    def of(cls, given: dict[str, Any]) -> _Wish:
        """Read gates and check places before anything else."""
        from mambabench.compare.gates import parse_gate

        gates = [parse_gate(text) for text in given.pop("gates")]
        wish = cls(
            gates=gates,
            tasks=given["tasks"],
            **{name: given.pop(name) for name in ("baseline", "fail_when", "export", "plot", "as_json")},
        )
        if wish.plot is not None:
            check_directory(wish.plot)
        if wish.export is not None:
            check_directory(wish.export, "--export", "all files")
        return wish


@dataclass
class _Said:
    """A comparison of any kind, to be shown."""

    document: dict[str, Any]
    render: Callable[[], None]
    gates: list[GateResult] = field(default_factory=list)
    files: dict[str, list[Path]] = field(default_factory=dict)
    undone: MambabenchError | None = None
    """What kept figures or files from being written: the table may have taken hours."""

    def write(self, what: str, directory: Path | None, how: Callable[[Path], list[Path]]) -> None:
        """Write figures or files into a directory, if there is one to write into."""
        from mambabench.errors import MambabenchError, UsageError

        if directory is None:
            return
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self.files[what] = how(directory)
        except OSError as error:
            self.undone = UsageError(
                f"{directory} cannot be made: {error.strerror}",
                hint=f"Name another directory for `--{what}`.",
            )
        except MambabenchError as error:
            self.undone = error

    def show(self, found: Found, wish: _Wish) -> None:
        """Print everything, then raise for gates, failed cells and files that could not be written."""
        from mambabench.compare.gates import raise_for
        from mambabench.tables.compare.gates import render as render_gates
        from mambabench.tables.compare.plain import plain

        warnings = list(dict.fromkeys(w for one in found.evaluated for w in one.outcome.warnings))
        if wish.as_json:
            files = {what: [str(path) for path in paths] for what, paths in self.files.items()}
            gates = [asdict(result) for result in self.gates]
            print_json(plain({**self.document, "gates": gates, "files": files, "warnings": warnings}))
        else:
            self.render()
            lines = [f"{what}: {path}" for what, paths in self.files.items() for path in paths]
            for one in found.evaluated:
                again = "" if one.outcome.n_computed else " (complete before; nothing was computed)"
                lines.append(f"run of {one.given.label}: {one.outcome.path}{again}")
            for line in (*warnings, *lines):
                click.echo(line)
            render_gates(self.gates)
        raise_for(self.gates)
        for one in found.evaluated:
            one.outcome.raise_for_failures()
        if self.undone is not None:
            raise self.undone


def _sides(context: click.Context, given: dict[str, Any], wish: _Wish) -> tuple[Found, CompareOptions]:
    from mambabench.cli.compare_sides import Asking, checkpoints, find_sides
    from mambabench.cli.zeroshot import asked_suite
    from mambabench.compare.sources import parse_given
    from mambabench.contest import Asked
    from mambabench.errors import UsageError

    options = _options(given)
    out: Path = given["out"]
    texts = [*given["texts"], *checkpoints(given["patterns"], out)]
    if not texts:
        raise UsageError("nothing is named to compare", hint="`mambabench compare --help` shows examples.")
    if given["patterns"]:
        _refuse(context, wish, ("baseline", "gates", "export", "ranking"), "--checkpoints")
    sides = [parse_given(text, out) for text in texts]
    # What is wrong with an option shows whether it is needed or not. Runs have names of tasks of their own.
    picked = given["patterns"] and given["num_fewshot"] is None and all(side.path for side in sides)
    suite = asked_suite(given["suite"], () if picked else given["tasks"], given["num_fewshot"])
    asking = Asking(
        asked=Asked(
            suite=suite,
            **{name: given[name] for name in ASKED if name not in ("suite", "tasks", "num_fewshot")},
        ),
        baseline=wish.baseline,
        gates=wish.gates,
        evaluation={"out": out, **{name: given[name] for name in EVALUATED}},
        useless=typed(context, (*ASKED, *EVALUATED)),
        options=options,
        curves=bool(given["patterns"]),
    )
    return find_sides(sides, asking), options


def _refuse(context: click.Context, wish: _Wish, names: Sequence[str], beside: str) -> None:
    from mambabench.errors import UsageError

    if options := typed(context, names):
        raise UsageError(f"{options[0]} does not go with {beside}", hint="Leave one of them out.")


def _options(given: dict[str, Any]) -> CompareOptions:
    from mambabench.compare.result import CompareOptions
    from mambabench.compare.run import check_options
    from mambabench.errors import ExtraMissingError

    names = ("correction", "alpha", "power", "detect_points", "replicates", "seed", "cluster", "ranking")
    options = CompareOptions(**{name: given[name] for name in names}, **given["margins"])
    check_options(options)
    if options.ranking and find_spec("evalica") is None:
        # Known now, and needed at the end.
        raise ExtraMissingError(
            "--rank needs evalica, which is not installed", hint="pip install 'mambabench[ranking]'"
        )
    n_examples = given["n_examples"]
    return options if n_examples is None else replace(options, n_examples=n_examples)


def _compared(found: Found, options: CompareOptions, wish: _Wish, *, curves: bool, examples: bool) -> _Said:
    from mambabench.compare.sources import require_baseline

    if curves:
        return _curves(found, options, wish)
    baseline, candidates = require_baseline(found.sides, wish.baseline)
    if not examples:
        options = replace(options, n_examples=_EXAMPLES_OF_ONE if len(candidates) == 1 else 1)
    how = _scores if found.is_scored else _speeds
    return how(found.sides, baseline, options, wish)


def _scores(sides: Sequence[Side], baseline: Side, options: CompareOptions, wish: _Wish) -> _Said:
    from mambabench.compare.export import export_items
    from mambabench.compare.gates import check_gates
    from mambabench.compare.run import compare_sides
    from mambabench.plots.compare import save_figures
    from mambabench.tables.compare.plain import as_json
    from mambabench.tables.compare.terminal import render

    compared = compare_sides(sides, baseline, options)
    comparison = compared.comparison
    said = _Said({"kind": "scores", **as_json(comparison)}, lambda: render(comparison))
    said.gates = check_gates(wish.gates, comparison, None, fail_when=wish.fail_when)
    said.write(
        "export",
        wish.export,
        lambda folder: export_items(folder, comparison, compared.tasks, compared.labels),
    )
    said.write("plot", wish.plot, lambda folder: save_figures(comparison, folder))
    return said


def _speeds(sides: Sequence[Side], baseline: Side, options: CompareOptions, wish: _Wish) -> _Said:
    from mambabench.compare.gates import check_gates
    from mambabench.compare.speed import compare_speed
    from mambabench.errors import UsageError
    from mambabench.plots.compare.speed import NAME, draw_speed_ratios
    from mambabench.tables.compare.speed import render

    for option, is_given in (("--export", wish.export is not None), ("--rank", options.ranking)):
        if is_given:
            raise UsageError(f"{option} is of items, and sweeps have none", hint="Leave it out.")
    comparison = compare_speed(sides, baseline, options)
    document = {"kind": comparison.kind, "schema_version": 1, **comparison.as_json()}
    said = _Said(document, lambda: render(comparison))
    said.gates = check_gates(wish.gates, None, comparison, fail_when=wish.fail_when)

    said.write("plot", wish.plot, lambda folder: _saved(NAME, draw_speed_ratios(comparison), folder))
    return said


def _curves(found: Found, options: CompareOptions, wish: _Wish) -> _Said:
    from mambabench.compare.curves import curves
    from mambabench.errors import UsageError
    from mambabench.plots.compare.curves import draw_steps
    from mambabench.plots.speed.sheet import sheet_style
    from mambabench.tables.compare.curves import words
    from mambabench.tables.compare.curves_terminal import render
    from mambabench.tables.compare.plain import plain

    if not found.is_scored:
        raise UsageError("--checkpoints lays out scores, not sweeps", hint="Name runs of zeroshot.")
    laid_out = curves(found.sides, options, known=found.steps, tasks=wish.tasks)
    document = {"kind": "curves", "schema_version": 1, "answers": words(laid_out), **plain(laid_out)}
    said = _Said(document, lambda: render(laid_out))

    def draw(folder: Path) -> list[Path]:
        with sheet_style():
            figure = draw_steps(laid_out)
        return _saved("curves", figure, folder)

    said.write("plot", wish.plot, draw)
    return said


def _saved(name: str, figure: Figure | None, folder: Path) -> list[Path]:
    from mambabench.plots import save_all

    return [] if figure is None else save_all(lambda: {name: figure}, folder)
