r"""Text of any content as LaTeX that shows it: nothing in it is a command, and pdflatex never stops at it.

The result is ASCII, and needs no package (before 2020 textcomp): accents are commands, mathematical signs and
Greek letters are formulas, and a character that no font of LaTeX's own has is named by its number.

    >>> print(inline("50% of a_b & ±1 é 中"))
    50\% of a\_b \& \ensuremath{\pm}1 \'{e} \texttt{U+4E2D}
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from mambabench.tables.compare.format import harmless

_SPECIAL: Final = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\symbol{34}", "[": "{[}", "]": "{]}",
    "`": r"\textasciigrave{}",
}  # fmt: skip
_SIGNS: Final = {
    "±": r"\pm", "×": r"\times", "÷": r"\div", "·": r"\cdot", "−": "-", "≤": r"\leq", "≥": r"\geq",
    "≈": r"\approx", "≠": r"\neq", "∞": r"\infty", "→": r"\rightarrow", "←": r"\leftarrow",
    "↑": r"\uparrow", "↓": r"\downarrow", "↔": r"\leftrightarrow", "⇒": r"\Rightarrow", "√": r"\surd",
    "∑": r"\sum", "∏": r"\prod", "∫": r"\int", "∂": r"\partial", "∇": r"\nabla", "∈": r"\in",
    "∪": r"\cup", "∩": r"\cap", "⊂": r"\subset", "∀": r"\forall", "∃": r"\exists", "¬": r"\neg",
    "∧": r"\wedge", "∨": r"\vee", "∝": r"\propto", "≡": r"\equiv", "≪": r"\ll", "≫": r"\gg",
    "∘": r"\circ", "°": r"{}^{\circ}", "∗": r"\ast", "⋅": r"\cdot", "′": "{}'", "ℓ": r"\ell",
    "∅": r"\emptyset", "²": "{}^{2}", "³": "{}^{3}", "¹": "{}^{1}", "µ": r"\mu", "½": r"\frac{1}{2}",
    "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
}  # fmt: skip
_TEXTS: Final = {
    "–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "…": r"\ldots{}", "•": r"\textbullet{}",
    "§": r"\S{}", "¶": r"\P{}", "©": r"\copyright{}", "£": r"\pounds{}", "ß": r"\ss{}", "æ": r"\ae{}",
    "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}",
    "ı": r"\i{}", "¡": "!`", "¿": "?`", "\u2010": "-", "\u2011": "-", "‚": ",", "„": ",,",
}  # fmt: skip
_GREEK: Final = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda",
    "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma",
    "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega",
)  # fmt: skip
_ACCENTS: Final = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b",
}  # fmt: skip
_LONGEST_CODE_WORD: Final = 30
"""Letters; commands have paths that are longer than a line."""
_LIGATURE: Final = re.compile(r"([-',])(?=\1)")


def _greek() -> dict[str, str]:
    def letter(name: str) -> str:
        case = "CAPITAL" if name[0].isupper() else "SMALL"
        return unicodedata.lookup(f"GREEK {case} LETTER {name.upper().replace('LAMBDA', 'LAMDA')}")

    return {letter(name): rf"\{name}" for name in _GREEK}


_FORMULAS: Final = _SIGNS | _greek()


def inline(text: str, *, line_break: str = " ", longest_word: int | None = None) -> str:
    """Return text as LaTeX for a paragraph, a heading or a cell of a table.

    Args:
        text: of any content; invisible and control characters are written as Python writes them.
        line_break: what stands for the end of a line.
        longest_word: letters of a word that fit into a line; longer ones may be broken.
    """
    lines = [harmless(line).strip() for line in text.strip().splitlines()]
    shown = line_break.join(
        _line(line)
        if longest_word is None
        else " ".join(_breakable(word, longest_word) for word in line.split(" "))
        for line in lines
    )
    # Behind the end of a table's row a star or a bracket would belong to that.
    return "{*}" + shown[1:] if shown.startswith("*") else shown


def code(text: str) -> str:
    """Return one line of code as LaTeX for typewriter letters, with all its spaces.

    Args:
        text: without newlines.
    """
    words = [harmless(word) for word in text.expandtabs().split(" ")]
    return "\\ ".join(_breakable(word, _LONGEST_CODE_WORD) for word in words)


def _breakable(word: str, longest: int) -> str:
    """Return a word that may be broken behind its signs, and anywhere where it is too long without one."""
    word = unicodedata.normalize("NFC", word)
    if len(word) < longest:
        return _line(word)
    parts = re.split(r"(?<=[/_=,.-])(?=.)", word)
    short = [part[i : i + longest - 1] for part in parts for i in range(0, len(part), max(1, longest - 1))]
    return "\\allowbreak{}".join(map(_line, short))


def _line(text: str) -> str:
    safe = _LIGATURE.sub(lambda match: f"{match[0]}\0", unicodedata.normalize("NFC", text))
    return "".join(_character(c) for c in safe)


def _character(c: str) -> str:
    if c == "\0":
        return "{}"
    if c in _SPECIAL:
        return _SPECIAL[c]
    if " " <= c <= "~":
        return c
    if c in _TEXTS:
        return _TEXTS[c]
    if c in _FORMULAS:
        return rf"\ensuremath{{{_FORMULAS[c]}}}"
    base, *marks = list(unicodedata.normalize("NFD", c))
    if base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in _ACCENTS:
        # An accent takes the place of the dot.
        stem = rf"\{base}" if base in "ij" and marks[0] not in "\u0323\u0327\u0331" else base
        return rf"\{_ACCENTS[marks[0]]}{{{stem}}}"
    return rf"\texttt{{U+{ord(c):04X}}}"
