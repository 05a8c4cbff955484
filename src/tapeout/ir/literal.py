"""How names and numbers are spelled in `.tape` text; the scanner in `ir.scan` reads the same spelling."""

from __future__ import annotations

import json
import math
import re
import struct

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z", re.ASCII)


def spell_name(name: str) -> str:
    """Return a name as it is if it looks like one, else as a JSON string.

    >>> spell_name("fc1.weight"), spell_name("fc 1")
    ('fc1.weight', '"fc 1"')
    """
    return name if _PLAIN.match(name) else json.dumps(name)


def spell_number(value: float) -> str:
    """Return a bool, an int or a float so that it reads back as the same value, bit by bit.

    Floats always hold a point, an exponent, `inf` or `nan`; a NaN other than the usual one shows
    its bits, as in `nan(0x7ff8000000000001)`.

    >>> spell_number(3), spell_number(3.0), spell_number(True), spell_number(float("-inf"))
    ('3', '3.0', 'true', '-inf')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    value = float(value)
    if not math.isnan(value):
        return repr(value)
    bits = struct.unpack("<Q", struct.pack("<d", value))[0]
    return "nan" if bits == _NAN else f"nan({bits:#018x})"


def nan_of(bits: int) -> float:
    """Return the float whose 64 bits are given."""
    found: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    return found


_NAN = 0x7FF8000000000000
