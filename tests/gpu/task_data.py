"""Where the tasks' data are: a folder given, or rows made up for a rehearsal."""

from __future__ import annotations

from pathlib import Path

FOLDERS = {
    "hellaswag": "Rowan/hellaswag",
    "piqa": "baber/piqa",
    "arc_easy": "allenai/ai2_arc",
    "lambada_openai": "EleutherAI/lambada_openai",
}
"""The headline's tasks, and the folder of each."""
SUBJECTS = (
    "elementary_mathematics", "moral_disputes", "abstract_algebra", "college_chemistry", "nutrition",
    "world_religions", "marketing", "computer_security",
)  # fmt: skip
"""Subjects of MMLU, the first two of median length; those with prompts beyond a window are left out."""
_MMLU = Path("cais") / "mmlu"


def task_folder(data: Path) -> Path:
    """Return the folder that `--data-dir` takes: the one given, or `eval` in it."""
    return data / "eval" if (data / "eval").is_dir() else data


def tasks_there(data: Path) -> list[str]:
    """Return those of the headline's tasks whose data are there.

    Raises:
        SystemExit: there are none.
    """
    found = [task for task, folder in FOLDERS.items() if (data / folder).is_dir()]
    if not found:
        raise SystemExit(f"{data} holds none of {', '.join(FOLDERS.values())}")
    return found


def subjects_there(data: Path, most: int) -> list[str]:
    """Return MMLU's tasks whose data are there.

    Raises:
        SystemExit: there are none.
    """
    found = [f"mmlu_{name}" for name in SUBJECTS if (data / _MMLU / name).is_dir()]
    if not found:
        raise SystemExit(f"{data / _MMLU} holds none of {', '.join(SUBJECTS)}")
    return found[:most]


def made_up(folder: Path) -> Path:
    """Write generated rows in the schema of every data set, and return their folder."""
    from tasks.rows import write_rows

    return folder if folder.is_dir() else write_rows(folder, n=6)
