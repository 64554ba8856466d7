"""Texts as a page can show them: what is invisible or would turn other text round shows as its code.

Texts of a report are untrusted. Markup is harmless once it is escaped, which the templates do; what is left
is characters that no file holds, that nobody sees, or that make text read other than it is.

    >>> shown("a\\x1b[1mb\\u202ec"), shown("two\\nlines")
    ('a\\\\x1b[1mb\\\\u202ec', 'two\\nlines')
    >>> str(json_text(["</script>"]))
    '["\\\\u003c/script\\\\u003e"]'
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from markupsafe import Markup, escape

_UNSEEN: Final = re.compile(
    # Control characters but for tab and line feed, and halves of surrogate pairs.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff"
    # Marks of direction, overrides and isolates of it.
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    # Separators that scripts take for ends of lines, and what has no width; joiners are part of many scripts.
    "\u2028\u2029\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)
_IN_SCRIPTS: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
_TYPED: Final = re.compile(r"`([^`\n]+)`")


def shown(text: str) -> str:
    """Return a text with what cannot be seen written as Python writes it; lines and tabs stay."""
    text = text.replace("\r\n", "\n")
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def finalized(value: Any) -> Any:
    """Return what a template writes of a value; markup that was made here stays as it is."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def worded(text: str) -> Markup:
    """Return a sentence as markup: what stands between backticks is to be typed."""
    return Markup(_TYPED.sub(r"<code>\1</code>", str(escape(shown(text)))))


def json_text(value: Any) -> Markup:
    """Return JSON that a script element can hold: nothing in it ends the element or begins a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(re.sub("[<>&]", lambda found: _IN_SCRIPTS[found[0]], text))
