"""Write every frame and column into docs/frames.md, or check that it is up to date there.

python tools/frame_texts.py            # write
python tools/frame_texts.py --check    # exit 1 if the file differs
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from mambabench.frames import samples
from mambabench.frames.column import Column
from mambabench.frames.columns import FRAMES
from mambabench.frames.speed_columns import ESTIMATES
from mambabench.frames.warning_kinds import KINDS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "frames.md"
_TYPES = {"text": "text", "number": "number", "integer": "whole number", "flag": "yes or no"}
_ENDS = ("_low", "_high", "_method")
_LOAD = """\
import mambabench

runs = mambabench.load_runs("results")
runs.frame("scores")
"""
EXAMPLES = (
    (
        "Scores as a table, a column a model",
        """\
runs.frame("scores").query("headline").pivot_table(index="task_label", columns="label", values="value")
""",
    ),
    (
        "Time of a token against the length of the prompt, each model in its fastest way, in milliseconds",
        """\
speed = runs.frame("speed").query("kind == 'latency' and batch_size == 1 and fastest")
(speed.pivot_table(index="prompt_len_tokens", columns="label", values="tpot_s") * 1e3).plot(logx=True)
""",
    ),
    (
        "Recall by length, a column a model and task",
        """\
recall = runs.frame("recall").query("metric == 'accuracy'")
recall.pivot_table(index="length_tokens", columns=["label", "task"], values="value")
""",
    ),
    (
        "Which models are worth their time, at each length",
        """\
front = runs.frame("quality_cost").query("cost == 'tpot_s' and on_front")
front = front.sort_values(["quality", "length_tokens", "cost_value"])
front[["quality", "length_tokens", "label", "quality_percent", "cost_value"]]
""",
    ),
    (
        "Differences from the first model, with what they say",
        """\
contrasts = runs.frame("contrasts").query("headline")
contrasts[["candidate", "task_label", "difference", "interval_low", "interval_high", "verdict"]]
""",
    ),
    (
        "Items that a model has wrong",
        """\
items = runs.samples()
items[~items["right"]][["label", "task", "question", "right_answer", "answer"]]
""",
    ),
    (
        "What could be wrong, and what follows",
        """\
runs.frame("warnings").query("severity != 'note'")[["label", "text", "advice"]]
print(*runs.frame("findings")["text"], sep="\\n")
""",
    ),
)
"""What a notebook does with frames: a heading and lines that run."""


def render() -> str:
    """Return the page: what to do with frames, then each frame with its columns."""
    parts = [
        "# Frames",
        "",
        "Written by `python tools/frame_texts.py` from the catalogue of frames.",
        "",
        "Results of stored runs are had as pandas frames, without the command line:",
        "",
        _code(_LOAD),
        "",
        "`load_runs` takes runs, directories of runs, or several of either. Tables, figures and reports are "
        "made of these frames, and `mambabench report RUN... --tables DIR` writes them as CSV and Parquet. A "
        "run that cannot be read is a row of `runs` that says why.",
        "",
        "Numbers are not rounded. Times are in seconds and sizes in bytes; what is in percent says so. "
        "Intervals are of 95%. A missing value is `NaN` in numbers, `<NA>` in whole numbers and in yes or "
        "no, and `None` in texts.",
        "",
    ]
    for heading, lines in EXAMPLES:
        parts += [f"{heading}:", "", _code(lines), ""]
    parts += ["## The frames", "", "| Frame | Holds |", "|---|---|"]
    parts += [f"| [`{name}`](#{name}) | {about} |" for name, (about, _) in FRAMES.items()]
    parts += [f"| [`samples`](#samples) | {samples.ABOUT} |", ""]
    for name, (about, columns) in FRAMES.items():
        parts += _section(name, about, columns)
        if name == "warnings":
            parts += ["Kinds of warnings:", "", "| About | Severity | Way out |", "|---|---|---|"]
            parts += [f"| {kind} | {found.severity} | {found.advice} |" for kind, found in KINDS.items()]
            parts.append("")
    about = f"{samples.ABOUT} It is `runs.samples(task, label)`; without a task or a label it holds all."
    return "\n".join([*parts, *_section("samples", about, samples.COLUMNS)])


def _code(lines: str) -> str:
    return f"```python\n{lines.rstrip()}\n```"


def _section(name: str, about: str, columns: Iterable[Column]) -> list[str]:
    rows = [
        f"| `{c.name}` | {_TYPES[c.type]} | {c.unit} | {_sentence(c.text)} |"
        for c in columns
        if not _is_end(c)
    ]
    said = [
        f"## {name}",
        "",
        about,
        "",
        "| Column | Type | Unit | What it says |",
        "|---|---|---|---|",
        *rows,
        "",
    ]
    if any(map(_is_end, columns)):
        said += [
            "Each figure that is a mean over processes has its ends beside it, in `<figure>_low` and "
            "`<figure>_high`, and in `<figure>_method` what they are: `t on log` for the ends of the 95% "
            "interval, `range` for the smallest and the largest process, `single` for the only one.",
            "",
        ]
    return said


def _is_end(column: Column) -> bool:
    """Tell whether a column is an end or the method of an estimate, which are told of together."""
    return any(column.name == f"{name}{end}" for name in ESTIMATES for end in _ENDS)


def _sentence(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Write or check the page."""
    page = render()
    if "--check" not in sys.argv[1:]:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page:
        return 0
    print("docs/frames.md is not what the catalogue says: run python tools/frame_texts.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
