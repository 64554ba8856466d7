r"""A report as a LaTeX document that pdflatex compiles, and each of its tables alone for a paper.

    text = render_latex(report, figures="figures")
    table = latex_table(report.tables()[0])

It needs packages of every LaTeX: booktabs, longtable, array, graphicx, float and geometry. Text is ASCII
(`mambabench.report.latex_text`). Equal reports give equal text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mambabench.report.document import Browser, Code, Picture, Table, Words
from mambabench.report.items_summary import counted, summary_of
from mambabench.report.latex_table import latex_table
from mambabench.report.latex_text import code, inline

if TYPE_CHECKING:
    from mambabench.report.document import Block, Report, Tone

__all__ = ["latex_table", "render_latex"]

_SAID: Final[dict[Tone, str]] = {"bad": "\\textbf{Problem:} ", "doubt": "\\textbf{Caution:} "}
_PARAGRAPH: Final = "\\par "
_LONGEST_WORD: Final = 40
"""Letters; names of runs are longer and would stand out of the page."""
_PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9 ._/+:@,=-]*")
_PREAMBLE: Final = r"""\documentclass[10pt]{article}
\IfFileExists{lmodern.sty}{\usepackage[T1]{fontenc}\usepackage{lmodern}}{}
\usepackage[margin=2cm]{geometry}
\usepackage{array}
\usepackage{booktabs}
\usepackage{float}
\usepackage{graphicx}
\usepackage{longtable}
\usepackage{textcomp}
\setlength{\emergencystretch}{3em}
\setlength{\parindent}{0pt}
\setlength{\parskip}{0.5em}
\setlength{\belowcaptionskip}{0.5em}
\newcommand{\reportpicture}[1]{%
  \par\includegraphics[width=0.9\linewidth,height=0.42\textheight,keepaspectratio]{#1}\par}
\newcommand{\reportfigure}[2]{\IfFileExists{#1.pdf}{\reportpicture{#1.pdf}}{%
  \IfFileExists{#1.png}{\reportpicture{#1.png}}{#2}}}
\begin{document}
"""


def render_latex(report: Report, *, figures: str | None = None) -> str:
    """Return the report as a document.

    Args:
        report: what to show.
        figures: directory in which `KEY.pdf` or `KEY.png` of every picture lies, from where the document is
            compiled; a picture that is not there, and every one if None, is described.
    """
    parts = [f"{{\\LARGE\\bfseries {inline(report.title)}\\par}}", _words(report.subtitle)]
    parts.append(_listed([_words(text) for words in report.answers for text in words.sentences]))
    for section in report.sections:
        parts += [f"\\section{{{inline(section.title)}}}", _words(section.lead)]
        for block in section.blocks:
            parts += _block(block, figures)
    parts.append(f"{{\\footnotesize {_words(report.program)}\\par}}")
    body = "\n\n".join(part for part in parts if part)
    return f"{_PREAMBLE}{body}\n\\end{{document}}\n"


def _words(text: str) -> str:
    return inline(text, line_break=_PARAGRAPH, longest_word=_LONGEST_WORD)


def _listed(texts: list[str]) -> str:
    items = "\n".join(f"\\item {text}" for text in texts)
    return f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}" if texts else ""


def _block(block: Block, figures: str | None) -> Iterator[str]:
    if isinstance(block, Table):
        yield latex_table(block, place="H")
    elif isinstance(block, Picture):
        yield f"\\subsection*{{{inline(block.title)}}}"
        yield _picture(block, figures)
    elif isinstance(block, Words):
        yield _listed([_SAID.get(block.tone, "") + _words(text) for text in block.sentences])
    elif isinstance(block, Code):
        lines = "\\par\n".join(f"\\mbox{{}}{code(line)}" for line in block.text.splitlines())
        yield f"{_words(block.label)}\n\n{{\\ttfamily\\small\\raggedright\n{lines}\\par}}"
    elif isinstance(block, Browser):
        for task in block.tasks:
            yield f"\\subsection*{{{inline(task.title)}}}\n{_words(counted(task))}"
            if (summary := summary_of(task)) is not None:
                yield latex_table(summary, place="H")


def _picture(picture: Picture, figures: str | None) -> str:
    described = f"\\emph{{Figure.}} {_words(picture.description)}"
    if figures is None or not _PLAIN_PATH.fullmatch(figures):
        # A path with other characters cannot be named in LaTeX without doubt.
        return described
    folder = f"{figures.rstrip('/')}/" if figures else ""
    return f"\\reportfigure{{\\detokenize{{{folder}{picture.key}}}}}{{{described}}}"
