"""Text that goes into XML and HTML."""

from __future__ import annotations

import html
import re

_IMPOSSIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""Characters that no XML document may hold; a name from a model may."""


def escape(text: str) -> str:
    """Return text for content or a quoted attribute; characters that XML cannot hold become U+FFFD."""
    return html.escape(clean(text), quote=True)


def clean(text: str) -> str:
    """Return text without characters that XML cannot hold."""
    return _IMPOSSIBLE.sub("\ufffd", text)
