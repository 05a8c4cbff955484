"""Numbers as people read them."""

from __future__ import annotations

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
_DECIMAL = ("", "k", "M", "G", "T", "P")


def bytes_text(count: float) -> str:
    """Return a number of bytes with a binary unit.

    >>> bytes_text(96), bytes_text(246824), bytes_text(3 << 30)
    ('96 B', '241.0 KiB', '3.0 GiB')
    """
    size, unit = float(count), 0
    while abs(size) >= 1024 and unit < len(_BINARY) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} B" if unit == 0 else f"{size:.1f} {_BINARY[unit]}"


def count_text(count: float) -> str:
    """Return a number with a decimal prefix and three significant digits.

    >>> count_text(61706), count_text(843), count_text(53_700_000)
    ('61.7k', '843', '53.7M')
    """
    size, unit = float(count), 0
    while abs(size) >= 999.5 and unit < len(_DECIMAL) - 1:
        size, unit = size / 1000, unit + 1
    text = f"{size:.0f}" if unit == 0 or abs(size) >= 99.95 else f"{size:.3g}"
    return text + _DECIMAL[unit]


def seconds_text(seconds: float) -> str:
    """Return a duration as short as it stays precise.

    >>> seconds_text(0.0000123), seconds_text(0.84), seconds_text(75), seconds_text(7270)
    ('12.3 µs', '840 ms', '1 min 15 s', '2 h 01 min')
    """
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
