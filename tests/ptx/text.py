"""The text of a kernel in PTX, NVIDIA's assembly, taken apart into statements.

    kernel = parsed(compiled.asm["ptx"])
    kernel.statements[0].operation  # ("ld", "param", "b64")

A file has one kernel. All of its shared memory goes by one name, whose address is 0 here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

IGNORED = (".reg", ".pragma", ".shared")
"""Declarations: registers come to be when they are written."""


@dataclass(frozen=True)
class Statement:
    """One instruction."""

    text: str
    operation: tuple[str, ...]
    operands: tuple[str, ...]
    condition: str | None = None
    """Register that says which threads take part; null for all."""
    is_negated: bool = False

    @property
    def kind(self) -> str:
        """Type of the numbers, as in the operation's last part."""
        return self.operation[-1]


@dataclass(frozen=True)
class Kernel:
    """A kernel: its parameters' names in order, its statements, and which of those each label is before."""

    name: str
    parameters: tuple[str, ...]
    statements: tuple[Statement, ...]
    labels: dict[str, int]


def parsed(ptx: str) -> Kernel:
    """Take a file's kernel apart.

    Raises:
        ValueError: a declaration that is not known.
    """
    text = re.sub(r"//[^\n]*", "", re.sub(r"/\*.*?\*/", "", ptx, flags=re.DOTALL))
    head = re.search(r"\.entry\s+(\w+)\s*\((.*?)\)", text, re.DOTALL)
    if head is None:
        raise ValueError("no kernel in this PTX")
    parameters = tuple(part.split()[-1] for part in head[2].split(",") if part.strip())
    body = _body(text, head.end())
    for name in re.findall(r"\.shared[^;\n]*\s(\w+)\s*\[", text):
        body = re.sub(rf"\b{name}\b", "0", body)
    statements: list[Statement] = []
    labels: dict[str, int] = {}
    for part in re.split(r";|(?<=:)\s*\n", re.sub(r"^\s*\.(loc|file)[^\n]*$", "", body, flags=re.MULTILINE)):
        line = " ".join(part.split())
        # Inline assembly stands in braces of its own; operands in braces never come first.
        while start := re.match(r"([\w$]+):\s*|[{}]\s*", line):
            if start[1]:
                labels[start[1]] = len(statements)
            line = line[start.end() :]
        if line and not line.startswith(IGNORED):
            statements.append(_statement(line))
    return Kernel(head[1], parameters, tuple(statements), labels)


def _body(text: str, start: int) -> str:
    """Return what is between the first brace and the one that closes it."""
    first = text.index("{", start)
    depth = 0
    for brace in re.finditer(r"[{}]", text[first:]):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return text[first + 1 : first + brace.start()]
    raise ValueError("a brace is not closed")


def _statement(line: str) -> Statement:
    if line.startswith("."):
        raise ValueError(f"not known: {line}")
    found = re.match(r"(?:@(!?)(%\w+)\s+)?(\S+)\s*(.*)", line)
    if found is None:
        raise ValueError(f"not an instruction: {line}")
    operands = tuple(part.strip() for part in re.split(r",(?![^{\[]*[}\]])", found[4]) if part.strip())
    return Statement(line, tuple(found[3].split(".")), operands, found[2], found[1] == "!")


def listed(operand: str) -> list[str]:
    """Return the registers of an operand, which are in braces where there are several."""
    return [name.strip() for name in operand.strip("{} ").split(",")]
