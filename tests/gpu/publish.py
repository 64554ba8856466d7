"""Copy of a folder of results what can be shown to everybody.

    python tests/gpu/publish.py OUT DEST

That is SUMMARY.md, steps.jsonl and the runs, without the samples and answers of zero-shot runs, which repeat
the data sets' text; nothing of wheels, checkpoints and logs. Paths of the machine are replaced: those that
`run.sh` was given by their names, others by their last part. DEST is made anew.

Exit codes: 0 done; 1 a path of the machine would remain; 2 wrong usage; 4 OUT holds no results, or those of a
rehearsal.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import summary
from step_running import PLACES

LEFT_OUT = {"samples", "answers", "scratch"}
"""Folders of runs."""
SUFFIXES = {".json", ".jsonl", ".md", ".parquet", ".f32"}
_TEXT = {".json", ".jsonl", ".md"}
# A slash that begins a path, not one inside a name, a fraction or an address.
_ABSOLUTE = re.compile(r"(?<![\w.:/<-])(?:/[\w.+@~=,-]+){2,}/?")


class Cleaner:
    """Replaces paths of the machine.

    Args:
        places: by path, the name that takes its place.

    >>> Cleaner({"/home/me/out": "OUT"}).clean("--out /home/me/out/runs, /opt/python/bin/python, 3 tokens/s")
    '--out OUT/runs, .../python, 3 tokens/s'
    """

    def __init__(self, places: dict[str, str]) -> None:
        # The longest first, as one may lie in another.
        self._places = sorted(places.items(), key=lambda item: -len(item[0]))

    def clean(self, text: str) -> str:
        """Return the text without paths of the machine."""
        for path, name in self._places:
            text = re.sub(rf"{re.escape(path)}(?![\w-])", name, text)
        return _ABSOLUTE.sub(lambda match: ".../" + match.group().rstrip("/").rsplit("/", 1)[-1], text)


def places_of(out: Path) -> dict[str, str]:
    """Return the paths that `run.sh` was given, as it noted them."""
    path = out / PLACES
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def files_of(out: Path) -> Iterator[Path]:
    """Yield what is to be copied, relative to the folder."""
    yield Path("steps.jsonl")
    for path in sorted((out / "runs").rglob("*")):
        inside = path.relative_to(out)
        if path.is_file() and path.suffix in SUFFIXES and not LEFT_OUT & set(inside.parts):
            yield inside


def publish(out: Path, dest: Path) -> list[str]:
    """Copy, and return what still looks like a path of the machine."""
    cleaner = Cleaner(places_of(out))
    shutil.rmtree(dest, ignore_errors=True)
    remain = []
    for name in files_of(out):
        target = dest / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.suffix not in _TEXT:
            shutil.copyfile(out / name, target)
            remain += [f"{name}: {place}" for place in _inside(target, out)]
            continue
        text = cleaner.clean((out / name).read_text(encoding="utf-8"))
        remain += [f"{name}: {match.group()}" for match in _ABSOLUTE.finditer(text)]
        target.write_text(text, encoding="utf-8")
    # Made of the cleaned figures.
    steps = summary.records(dest)
    (dest / summary.NAME).write_text(summary.text(steps), encoding="utf-8")
    return remain


def _inside(path: Path, out: Path) -> list[str]:
    """Return the noted places that stand in a file of bytes."""
    content = path.read_bytes()
    return [place for place in places_of(out) if place.encode() in content]


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and copy."""
    parser = argparse.ArgumentParser(prog="publish.py", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="what run.sh --out left")
    parser.add_argument("dest", type=Path, metavar="DEST", help="folder to be made anew")
    parser.add_argument("--rehearsed", action="store_true", help="also of a rehearsal, to try this")
    options = parser.parse_args(arguments)
    if not (options.out / "steps.jsonl").is_file():
        print(f"error: {options.out} holds no steps.jsonl", file=sys.stderr)
        return 4
    if any(r.get("rehearsed") for r in summary.records(options.out).values()) and not options.rehearsed:
        print(f"error: {options.out} is of a rehearsal, whose figures mean nothing", file=sys.stderr)
        return 4
    if options.dest.exists() and not (options.dest / "steps.jsonl").exists() and any(options.dest.iterdir()):
        parser.error(f"{options.dest} holds something else than published results")
    if remain := publish(options.out, options.dest):
        for line in remain:
            print(f"error: a path remains in {line}", file=sys.stderr)
        return 1
    print((options.dest / summary.NAME).read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
