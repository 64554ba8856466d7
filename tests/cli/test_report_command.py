"""`mambabench report`: what it writes and prints, what it refuses, and that equal runs give equal files."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scored_runs import choice_samples, drawn, stored_run
from shown_numbers import check_tables
from speed_records import sweep
from stored_sweeps import store_sweep

import mambabench.report.data
from mambabench.cli import _run
from mambabench.cli.garbage import collected_rarely
from mambabench.errors import StoreError
from mambabench.frames.api import load_runs
from mambabench.report.build import build_report
from mambabench.report.document import Browser, Code, Report, Words

NAMES = ("base", "<b>ft</b>|$x_1%")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models on two tasks, a sweep of two others, and a run that is damaged."""
    root = tmp_path_factory.mktemp("results")
    for skill, model in enumerate(NAMES):
        tasks = {
            name: choice_samples(*drawn(40, seed=seed, skill=1.0 + skill))
            for seed, name in enumerate(("piqa", "arc_easy"))
        }
        stored_run(root, model, tasks)
    store_sweep(root / "latency-both", sweep(prompt_lens=(128, 512), processes=2))
    broken = stored_run(tmp_path_factory.mktemp("other"), "gone", {"piqa": choice_samples(*drawn(4))})
    shutil.move(broken, root / "broken")
    (root / "broken" / "manifest.json").write_text("{")
    return root


@pytest.fixture(scope="module")
def report(results: Path) -> Report:
    return build_report(load_runs(results))


def test_figures_of_stored_runs_are_in_their_frames(results: Path, report: Report) -> None:
    assert check_tables(report.tables(), load_runs(results).frame) > 50


def test_a_report_has_the_sections_of_what_was_run(report: Report) -> None:
    keys = [section.key for section in report.sections]
    assert keys == ["zero-shot", "comparison", "speed", "doubts", "how-made", "items"]
    by = {section.key: section for section in report.sections}
    assert any(isinstance(block, Browser) for block in by["items"].blocks)
    commands = next(b for b in by["how-made"].blocks if isinstance(b, Code) and b.label == "Commands")
    assert "mambabench latency" in commands.text
    assert "broken" in {
        row[1].text for table in report.tables() if "warnings" in table.key for row in table.rows
    }
    pictures = {picture.key for section in report.sections for picture in report.pictures()}
    assert {"zeroshot-profile", "differences", "ttft"} <= pictures
    assert len({picture.key for picture in report.pictures()}) == len(report.pictures())
    assert all(picture.description and picture.title for picture in report.pictures())


def test_cycles_are_collected_rarely_and_then_as_before() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="inside"), collected_rarely():  # noqa: PT012
        assert gc.get_threshold()[0] > 10 * before[0]
        raise ValueError("inside")
    assert gc.get_threshold() == before
    assert gc.isenabled()


def test_a_figure_that_cannot_be_drawn_costs_no_report(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mambabench.plots import report as figures

    def broken(*_: object, **__: object) -> None:
        raise ValueError("a depth is no number")

    monkeypatch.setattr(figures, "_drawn", broken)
    made = build_report(load_runs(results))
    assert not made.pictures()
    said = [b for s in made.sections for b in s.blocks if isinstance(b, Words) and b.tone == "bad"]
    assert any("ttft could not be drawn: a depth is no number." in w.sentences[0] for w in said)
    assert made.tables()


def test_a_picture_is_drawn_anew_each_time(report: Report) -> None:
    picture = report.pictures()[0]
    first, second = picture.draw(), picture.draw()
    assert first is not second
    assert first.description == second.description == picture.description


def test_the_command_writes_every_format_twice_alike_and_prints_the_answers(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endings = ("html", "md", "tex", "json")
    contents = []
    for _ in range(2):
        outputs = [part for ending in endings for part in ("-o", str(tmp_path / f"r.{ending}"))]
        assert (
            _run(
                [
                    "report",
                    str(results),
                    *outputs,
                    "--title",
                    "A <title>",
                    "--items",
                    "5",
                    "--baseline",
                    "base",
                ]
            )
            == 0
        )
        out, err = capsys.readouterr()
        assert err == ""
        contents.append([(tmp_path / f"r.{ending}").read_bytes() for ending in endings])
    assert contents[0] == contents[1]
    lines = out.splitlines()
    assert lines[-4:] == [f"report: {tmp_path / f'r.{ending}'}" for ending in endings]
    assert lines[0].startswith(f"{NAMES[1]} is ")
    assert "broken" in lines[-5]
    page, markdown, latex, document = (content.decode() for content in contents[0])
    assert "A &lt;title&gt;" in page
    assert NAMES[1] not in page
    assert json.loads(document)["title"] == "A <title>"
    for text in (page, markdown, latex, document):
        assert str(tmp_path.parent) not in text.replace(str(results), "")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"r.{ending}" for ending in endings)


def test_figures_and_tables_are_written_beside_it(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["report", str(results), "--kind", "latency", "--format", "md", "--no-items"]
    assert _run([*arguments, "--figures", "f/g", "--tables", "t"]) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = sorted(path.name for path in (tmp_path / "f" / "g").iterdir())
    tables = sorted(path.name for path in (tmp_path / "t").iterdir())
    assert {"ttft.svg", "ttft.png"} <= set(figures)
    assert {"speed.csv", "speed.parquet"} <= set(tables)
    assert lines[-3:] == [
        "report: report.md", f"figures: {len(figures)} files in f/g", f"tables: {len(tables)} files in t"
    ]  # fmt: skip
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "](f/g/ttft.svg)" in text
    assert "How good the models are" not in text


def test_tables_on_a_full_disk_name_their_option(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> list[Path]:
        raise StoreError("cannot write t/speed.csv: No space left on device", hint="`--out DIR`")

    monkeypatch.setattr(mambabench.report.data, "write_frames", full)
    places = ["-o", str(tmp_path / "r.md"), "--tables", str(tmp_path / "t")]
    assert _run(["report", str(results / "latency-both"), *places]) == 2
    assert capsys.readouterr().err == (
        "error: cannot write t/speed.csv: No space left on device. Name another directory with `--tables`.\n"
    )


def test_bad_input_is_refused_before_anything_heavy(results: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.html").mkdir()
    os.mkfifo(tmp_path / "pipe.md")
    run = next(path for path in results.iterdir() if (path / "cells").is_dir())
    before = sorted(results.rglob("*"))
    cases = [
        (["-o", "x.pdf"], "x.pdf does not end like a format"),
        (["-o", str(tmp_path / "folder.html")], "is a directory"),
        (["-o", str(tmp_path / "nowhere" / "r.html")], "is no directory"),
        (["-o", ""], "-o is empty"),
        (["-o", "a.html", "-o", "./a.html"], "a.html is named twice"),
        (["-o", "-", "--format", "md"], "-o - names no file"),
        (["-o", "a" * 300 + ".md"], "File name too long"),
        (["-o", str(tmp_path / "pipe.md")], "is no ordinary file"),
        (["-o", str(run / "manifest.json")], "lies in the run"),
        (["-o", str(run / "cells" / "r.md")], "lies in the run"),
        (["--figures", str(run / "figures")], "lies in the run"),
        (["--tables", str(run)], "lies in the run"),
        (["--figures", "report.html"], "report.html is the report"),
        (["--tables", "a.md/b", "-o", "a.md"], "a.md is the report"),
        (["--tables", "a" * 300], "File name too long"),
        ([""], "a run's name is empty"),
        (["--figures", str(tmp_path / "file")], "is no directory"),
        (["--tables", str(tmp_path / "file")], "is no directory"),
        (["--items", "0"], "0 is not in the range"),
        (["--items", "3", "--no-items"], "--items does not go with --no-items"),
        (["--kind", "speed"], "'speed' is not one of"),
        (["--title", " "], "--title is empty"),
        ([str(tmp_path / "gone")], "does not exist"),
    ]
    program = (
        "import sys, json; from mambabench.cli import _run\n"
        "for arguments in json.loads(sys.argv[1]): print(_run(['report', *arguments]), file=sys.stderr)\n"
        "heavy = {'pandas', 'matplotlib', 'scipy', 'torch', 'jinja2'} & sys.modules.keys()\n"
        "print(sorted(heavy))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, json.dumps([arguments for arguments, _ in cases])],
        capture_output=True, text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    said = ended.stderr.splitlines()
    assert said[1::2] == ["2"] * len(cases)
    for line, (_, expected) in zip(said[::2], cases, strict=True):
        assert line.startswith("error: ")
        assert expected in line
    assert ended.stdout.strip() == "[]"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder.html", "pipe.md"}
    assert sorted(results.rglob("*")) == before


def test_a_baseline_that_there_is_not_is_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["report", str(results), "--baseline", "bas", "-o", "never.html"]) == 2
    assert "base" in capsys.readouterr().err
    assert not Path("never.html").exists()


def test_an_interruption_leaves_no_half_file(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mambabench.report.markdown

    target = tmp_path / "r.md"
    target.write_text("before")

    def interrupted(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(mambabench.report.markdown, "render_markdown", interrupted)
    assert _run(["report", str(results / "latency-both"), "-o", str(target)]) == 130
    assert capsys.readouterr().out == ""
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["r.md"]


def test_nothing_but_damaged_runs_makes_a_report_that_says_so(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "r\n\x1b[31m.html"
    assert _run(["report", str(results / "broken"), "-o", str(target)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "The run holds no result; 1 cannot be read."
    assert lines[-1].endswith(r"r \x1b[31m.html")
    assert "cannot be read" in target.read_text("utf-8")
