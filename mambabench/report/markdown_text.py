r"""Text of any content as Markdown that shows it and does nothing else, on GitHub, on GitLab and elsewhere.

Model output and data sets are untrusted: nothing in them becomes markup, a link, a mention of a person, a
reference to an issue, a formula or an emoji. What CommonMark and its tables read is escaped. What code hosts
find in the page afterwards cannot be escaped; there a zero-width space, written `&#8203;`, comes between.

    >>> print(inline("*a* | _b_ 1.2 [1.1, 1.3] @someone #12"))
    \*a\* \| \_b\_ 1.2 [1.1, 1.3] @&#8203;someone \#&#8203;12
    >>> print(fenced("a ``` b"))
    ````text
    a ``` b
    ````
"""

from __future__ import annotations

import re
from typing import Final

from mambabench.tables.compare.format import harmless

_BREAK: Final = "&#8203;"
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"}
_NASTY: Final = re.compile(
    r"""(?P<harmless>\[-?\d[\d.,e+\ -]*\](?![(\[:]) | (?<=[A-Za-z0-9])_(?=[A-Za-z0-9]))
      | (?P<linked>[a-z][a-z0-9+.-]*:(?=//) | (?:mailto|xmpp):(?=\S))
      | (?P<www>\bwww(?=\.))
      | (?P<mention>@(?=\w))
      | (?P<issue>\bGH-(?=\d))
      | (?P<reference>\#(?=\d) | (?<!\w)[!&](?=\d) | (?<!\w)[~%](?=[\w"]))
      | (?P<emoji>:(?=[\w+-]+:))
      | (?P<escaped>[\\`*_{}\[\]|~\#])
      | (?P<entity>[&<>$])""",
    re.VERBOSE | re.IGNORECASE,
)
_BEGINNING: Final = re.compile(r"[-+](?=[-+ ]|$)|=|\d+(?=[.)](?: |$))")
"""What makes a list or a heading's underline of a line that begins with it."""


def inline(text: str, *, line_break: str = "<br>") -> str:
    """Return text as Markdown for a paragraph, a list item, a heading or a cell of a table.

    Args:
        text: of any content; invisible and control characters are written as Python writes them.
        line_break: what stands for the end of a line.
    """
    lines = [harmless(line).strip() for line in text.strip().splitlines()]
    return _begun(line_break.join(_NASTY.sub(_tamed, line) for line in lines))


def _begun(line: str) -> str:
    found = _BEGINNING.match(line)
    if found is None:
        return line
    mark = found[0]
    # A digit cannot be escaped; the dot or the bracket behind it can.
    return f"{mark}\\{line[len(mark) :]}" if mark.isdigit() else f"\\{line}"


def _tamed(match: re.Match[str]) -> str:
    kind, found = match.lastgroup, match[0]
    if kind == "harmless":
        return found
    if kind == "escaped":
        return f"\\{found}"
    if kind == "entity":
        return _ENTITIES[found]
    if kind == "reference":
        shown = _ENTITIES.get(found) or (f"\\{found}" if found in "#~!" else found)
        return shown + _BREAK
    return found + _BREAK


def fenced(text: str) -> str:
    """Return text as a block of code, between fences longer than any run of backticks within."""
    lines = [re.sub(r"[^ \t]+", lambda match: harmless(match[0]), line) for line in text.splitlines()]
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}text", *lines, fence])
