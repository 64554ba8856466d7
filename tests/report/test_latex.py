"""LaTeX is compiled where there is a pdflatex; elsewhere its structure is checked alone."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nasty_report import NASTY, made_report, scores

from mambabench.report.document import Cell, Column, Table
from mambabench.report.latex import latex_table, render_latex
from mambabench.report.latex_text import code, inline

PLAIN = r"[A-Za-z0-9 .,:;!?()/+=@*'-]"
COMMANDS = (
    r"\\[%&#_${}]|\\text(?:backslash|ascii(?:circum|tilde|grave)|less|greater|bar|bullet)\{\}|\\symbol\{34\}"
    r"|\\(?:ldots|S|P|copyright|pounds|ss|ae|AE|oe|OE|o|O|l|L|i)\{\}|\{[*\[\]]\}|\{\}|`"
    r"|\\par |\\ |\\allowbreak\{\}"
    r"|\\ensuremath\{(?:\{\}|\\[A-Za-z]+|[\^'0-9-]|\{[0-9]\}|\{\\circ\})+\}|\\[`'^~=u.\"rHvdcb]\{\\?[A-Za-z]\}"
    r"|\\texttt\{U\+[0-9A-F]{4,6}\}"
)
SAFE = re.compile(f"(?:{PLAIN}|{COMMANDS})*")
texts = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="\\{}$&#%_^~<>|\"[]*`'-,!?a \n", max_size=30),
    st.text(alphabet=st.characters(max_codepoint=0x2300), max_size=30),
)
needs_tex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")


def compiled(folder: Path, document: str) -> str:
    """Return the log of a document that compiles without an error."""
    (folder / "report.tex").write_text(document, encoding="ascii")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "report.tex"],
        cwd=folder, capture_output=True, timeout=120,
    )  # fmt: skip
    log = done.stdout.decode("latin-1")
    assert done.returncode == 0, log[-2000:]
    return log


def check_structure(latex: str) -> None:
    """Check that braces and environments are balanced, and that rows are as long as their table's form."""
    assert latex.isascii()
    bare = re.sub(r"\\[\\{}&%$#_]", lambda match: "" if match[0] != r"\\" else match[0], latex)
    depth = 0
    for brace in re.findall(r"[{}]", bare):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", latex):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    for form, body in re.findall(
        r"\\begin\{(?:tabular|longtable)\}\{([^\n]*)\}\n(.*?)\\end\{", bare, re.DOTALL
    ):
        n_columns = len(re.sub(r">\{[^}]*\}|\{[^}]*\}|\[[^]]*\]", "", form))
        rows = [line for line in body.splitlines() if line.endswith(r" \\")]
        assert rows
        assert {row.count("&") for row in rows} == {n_columns - 1}


def table(n_rows: int, texts: list[str], **changes: object) -> Table:
    fields = {"key": "t", "title": "T", "frame": "scores", **changes}
    return Table(
        columns=tuple(Column(f"c{j}", numeric=j > 0) for j in range(len(texts))),
        rows=tuple(tuple(Cell(text) for text in texts) for _ in range(n_rows)),
        **fields,  # type: ignore[arg-type]
    )


TABLES = {
    "tabular": table(3, ["name", "1.0"]),
    "longtable": table(120, ["name", "1.0"]),
    "p{": table(3, ["words and " * 30, "1.0"]),
    "resizebox": table(3, ["name", *["12.3 {[12, 13]}"] * 7], layout="paper"),
    "continued": table(3, ["name", *["12.3 [12.1, 12.5]"] * 15]),
    "raggedleft": table(2, ["name", "1.0", "x" * 200]),
    "p{14em}": Table(
        "t",
        "T",
        tuple(Column(name) for name in ("kind", "of", "what", "way out")),
        (
            (
                Cell("few items"),
                Cell("mamba-tiny (zeroshot-smoke-" + "a" * 90 + ")"),
                Cell("x" * 300),
                Cell("Run the command again. " * 4),
            ),
        )
        * 3,
        "warnings",
    ),
    "named": table(3, ["named-" * 12, *["12.3 [12.1, 12.5]"] * 6]),
}


@given(texts)
@settings(max_examples=300)
@example(NASTY)
@example("--- `` '' ?` !`")
@example("".join(map(chr, range(0x20, 0x600))))
def test_any_text_is_safe(text: str) -> None:
    for latex in (
        inline(text),
        inline(text, longest_word=4, line_break="\\par "),
        *map(code, text.splitlines()),
    ):
        assert SAFE.fullmatch(latex), latex
        # Ligatures would make other characters of these.
        assert not re.search(r"''|\?`|!`|,,", latex) or re.search("[„”“¡¿]", text)
    assert not inline(text).startswith(("*", "["))


def test_characters_are_those_that_are_meant() -> None:
    assert inline("ñ Å ı í č ß Ω ≤ 0.5% é") == (
        r"\~{n} \r{A} \i{} \'{\i} \v{c} \ss{} \ensuremath{\Omega} \ensuremath{\leq} 0.5\% \'{e}"
    )
    assert inline("a--b") == "a-{}-b"
    assert inline("a\nb", line_break="\\par ") == "a\\par b"
    assert code("a  b") == r"a\ \ b"
    assert (
        code("/usr/share/" + "x" * 31)
        == rf"/\allowbreak{{}}usr/\allowbreak{{}}share/\allowbreak{{}}{'x' * 29}\allowbreak{{}}xx"
    )
    assert inline("ab_cdefg hi", longest_word=4) == r"ab\_\allowbreak{}cde\allowbreak{}fg hi"


@pytest.mark.parametrize(("form", "made"), TABLES.items())
def test_tables_of_every_size_have_their_form(form: str, made: Table) -> None:
    latex = latex_table(made)
    assert form in latex
    check_structure(latex)


def test_split_tables_have_every_column_once_and_the_name_in_each_part() -> None:
    latex = latex_table(TABLES["continued"])
    heads = [line for line in latex.splitlines() if line.startswith("c0")]
    assert len(heads) > 1
    names = [name for head in heads for name in head.removesuffix(r" \\").split(" & ")]
    assert [name for name in names if name != "c0"] == [f"c{j}" for j in range(1, 16)]
    for head in heads:
        assert len(head.split(" & ")) * 17 < 110
    labels = re.findall(r"\\label\{(.*?)\}", latex)
    assert len(labels) == len(set(labels)) == len(heads)


def test_split_tables_name_their_rows_by_all_columns_of_text_before_the_figures() -> None:
    columns = [Column("task"), Column("metric"), *(Column(f"c{j}", numeric=True) for j in range(12))]
    rows = ((Cell("Choice"), Cell("acc"), *[Cell("12.3 [12.1, 12.5]")] * 12),)
    latex = latex_table(Table("t", "T", tuple(columns), rows, "scores"))
    heads = [line.split(" & ") for line in latex.splitlines() if line.startswith("task")]
    assert len(heads) > 1
    assert all(head[:2] == ["task", "metric"] for head in heads)
    assert sum(len(head) - 2 for head in heads) == 12


def test_papers_tables_have_groups_of_a_size_and_bold_for_the_best() -> None:
    body = latex_table(scores()).split("\\midrule\n")
    assert body[0].splitlines()[-2:] == [
        r"model & LAMBADA & LAMBADA & HellaSwag & average \\",
        r" & ppl \ensuremath{\downarrow} & acc \ensuremath{\uparrow} & acc\_norm \ensuremath{\uparrow} & "
        r"\% \ensuremath{\uparrow} \\",
    ]
    assert body[1].splitlines() == [
        r"mamba-130m & \textbf{16.1} & \textbf{44.3} & \textbf{48.0} & \textbf{44.7} \\",
        r"pythia-160m & 38.1 & 33.0 & 35.6 & 34.3 \\",
    ]
    assert body[2].splitlines()[1].startswith(r"mamba-1.4b & \textbf{5.0}")


def test_nothing_is_bold_alone_or_without_a_direction_and_nan_never() -> None:
    def made(*values: float, unit: str = "↑", names: str = "ab") -> str:
        rows = tuple((Cell(n), Cell(f"{v:.1f}", (v,))) for n, v in zip(names, values, strict=False))
        return latex_table(
            Table("t", "T", (Column("m"), Column("x", unit, numeric=True)), rows, "scores", layout="paper")
        )

    assert "textbf" not in made(1.0)
    assert "textbf" not in made(1.0, 2.0, unit="s")
    assert "textbf" not in made(1.0, math.nan)
    assert made(math.inf, 2.0, unit="↓").count("textbf") == 1
    assert made(2.04, 2.0).count("textbf") == 2
    assert "midrule\nb" not in made(1.0, 2.0)


ALIGNED = Table(
    "t", "T", (Column("model"), Column("x_y", "acc ↑", numeric=True), Column("n", numeric=True)),
    (
        (Cell("a"), Cell("9.5", (9.5,)), Cell("1,000", (1000.0,))),
        (Cell("b"), Cell("-10.25", (-10.25,), note="why"), Cell("7", (7.0,))),
        (Cell("c"), Cell("failed 50%", note="why"), Cell("")),
    ),
    "scores", layout="paper",
)  # fmt: skip


def test_numbers_are_aligned_at_the_point_where_that_is_asked_for() -> None:
    latex = latex_table(ALIGNED, siunitx=True)
    check_structure(latex)
    assert "lS[table-format=-2.2,mode=text,reset-text-series=false]S[table-format=1," in latex
    for row in (
        r"model & {x\_y} & {n} \\", r" & {acc \ensuremath{\uparrow}} & {} \\",
        r"a & \bfseries 9.5 & {1,000} \\",
        r"b & -10.25 {\textsuperscript{1}} & 7 \\", r"c & {failed 50\%\textsuperscript{1}} & {} \\",
    ):  # fmt: skip
        assert row in latex.splitlines()
    assert "S[" not in latex_table(ALIGNED)
    assert "S[" not in latex_table(TABLES["p{"], siunitx=True).replace("S[table-format=1.1,", "")


@needs_tex
@pytest.mark.skipif(shutil.which("kpsewhich") is None, reason="no kpsewhich here")
def test_aligned_numbers_compile(tmp_path: Path) -> None:
    if subprocess.run(["kpsewhich", "siunitx.sty"], capture_output=True).returncode != 0:
        pytest.skip("no siunitx here")
    document = render_latex(made_report()).replace(
        "\\begin{document}", "\\usepackage{siunitx}\n\\begin{document}"
    )
    tables = latex_table(ALIGNED, siunitx=True) + latex_table(scores(), siunitx=True)
    log = compiled(tmp_path, document.replace("\\end{document}", tables + "\n\\end{document}"))
    assert "Package siunitx Warning" not in log


def test_notes_stand_below_with_their_marks() -> None:
    latex = render_latex(made_report())
    assert latex.count(r"\textsuperscript{1}") == 3
    assert r"\textsuperscript{1}~3 processes." in latex
    assert r"LAMBADA ppl \ensuremath{\downarrow}: perplexity of the last word." in latex


def test_the_document_is_whole_and_equal_each_time() -> None:
    for change in (lambda text: text, lambda text: NASTY + text):
        latex = render_latex(made_report(change), figures="my figures")
        assert latex == render_latex(made_report(change), figures="my figures")
        check_structure(latex)
    assert r"\reportfigure{\detokenize{my figures/profile}}{\emph{Figure.} " in latex
    assert "reportfigure{\\detok" not in render_latex(made_report(), figures="a%}b")


@needs_tex
@pytest.mark.parametrize("nasty", [False, True])
def test_reports_compile(tmp_path: Path, nasty: bool) -> None:
    log = compiled(tmp_path, render_latex(made_report(lambda text: NASTY + text if nasty else text)))
    assert "Undefined control sequence" not in log


@needs_tex
def test_characters_and_tables_compile(tmp_path: Path) -> None:
    characters = [chr(c) for c in range(1, 0x2500) if chr(c) not in "\n"]
    lines = ["".join(characters[i : i + 40]) for i in range(0, len(characters), 40)]
    document = render_latex(made_report()).replace(
        r"\end{document}",
        "\n\n".join([*map(inline, lines), *map(code, lines), *(latex_table(t) for t in TABLES.values())])
        + "\n\\end{document}",
    )
    compiled(tmp_path, document)


@needs_tex
def test_tables_stay_on_the_page(tmp_path: Path) -> None:
    tables = "\n".join(latex_table(made) for made in TABLES.values())
    log = compiled(
        tmp_path, render_latex(made_report()).replace(r"\end{document}", tables + "\n\\end{document}")
    )
    too_wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([0-9.]+)pt", log)]
    assert max(too_wide, default=0) < 10


@needs_tex
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext here")
def test_what_is_compiled_reads_as_it_was_written(tmp_path: Path) -> None:
    asked = r"\ { } $ & # % _ ^ ~ < > | [ ] * `` -- ? ` ! ` ,, 100%"
    compiled(tmp_path, render_latex(made_report(lambda _: asked)))
    done = subprocess.run(
        ["pdftotext", "-layout", "report.pdf", "-"], cwd=tmp_path, capture_output=True, check=True
    )
    seen = done.stdout.decode()
    assert re.sub(r"\s", "", asked) in re.sub(r"\s", "", seen)
