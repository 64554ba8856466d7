"""What intervals cover and how often tests err, for every kind of comparison, by one command, as Markdown.

    python tests/performance/interval_coverage.py                              everything
    python tests/performance/interval_coverage.py --section binary-score       one section; may be repeated
    python tests/performance/interval_coverage.py --list                       the sections' names

Each row gives the least and the largest value over all the cases that it names. Of right and wrong answers
they are sums over all outcomes; where there is a simulation the row says so, with its standard error. The
sections of a kind of comparison are in a module of their own: `SECTIONS` lists them all.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from performance import coverage_binary, coverage_means, tables
from performance.coverage_rows import Section

SECTIONS: dict[str, Section] = {
    **coverage_binary.SECTIONS,
    **coverage_means.SECTIONS,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--section", action="append", choices=list(SECTIONS), default=[])
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    if given.list:
        print("\n".join(f"{name}: {section.title}" for name, section in SECTIONS.items()))
        return
    for name in given.section or SECTIONS:
        section, start = SECTIONS[name], time.perf_counter()
        rows = [row.cells() for row in section.rows()]
        print(f"### {section.title}\n")
        print(tables.markdown(["n", "cases", section.value, "least", "largest"], rows))
        print(f"\n`--section {name}`, {time.perf_counter() - start:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
