"""Fit the polynomials of kernel/functions.py and write kernel/coefficients.py.

    python tools/minimax.py            needs mpmath; prints the error of each fit and writes the file

Each fit minimises the greatest weighted error over an interval (Remez' exchange). Coefficients are rounded to the format one
after another, the most important first, and the rest is fitted anew around each, so that rounding costs almost nothing.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpmath import mp, mpf

mp.dps = 60
Function = Callable[[mpf], mpf]
OUT = Path(__file__).resolve().parent.parent / "src" / "tapeout" / "kernel" / "coefficients.py"


@dataclass(frozen=True)
class Fit:
    """`sum c[k] * t**k` near `f` on an interval; the error is weighted, so that it is relative in what the formula computes."""

    name: str
    meaning: str
    f: Function
    weight: Function
    low: mpf
    high: mpf
    degree: dict[str, int]


def _ratio(f: Function, at_zero: float, near: float = 1e-18) -> Function:
    """The function with its limit where it is 0/0."""
    return lambda t: mpf(at_zero) if abs(t) < near else f(t)


HALF_LN2 = mp.log(2) / 2 * mpf("1.0001")
S_MAX = (mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)
Z_LOG = (S_MAX * mpf("1.0001")) ** 2
QUARTER = mp.pi / 4 * mpf("1.0001")
T_ATAN = mp.tan(mp.pi / 8) * mpf("1.0001")


def _atanh_tail(z: mpf) -> mpf:
    s = mp.sqrt(z)
    return 2 * (mp.atanh(s) - s) / (s * z)


def _atanh_tail_2(z: mpf) -> mpf:
    s = mp.sqrt(z)
    return 2 * (mp.atanh(s) - s - s**3 / 3) / (s * z * z)


FITS = [
    Fit(
        "EXP",
        "exp(r) = 1 + r + r*r*p(r), |r| <= ln(2)/2",
        _ratio(lambda r: (mp.expm1(r) - r) / (r * r), 0.5),
        lambda r: abs(r * r / mp.expm1(r)) if r else mpf(0),
        -HALF_LN2,
        HALF_LN2,
        {"f32": 4, "f64": 10},
    ),
    Fit(
        "LOG",
        "log((1+s)/(1-s)) = 2*s + s*z*p(z), z = s*s <= (sqrt(2)-1)**4",
        _ratio(_atanh_tail, mpf(2) / 3),
        lambda z: z,
        mpf(0),
        Z_LOG,
        {"f32": 2, "f64": 6},
    ),
    Fit(
        "LOG_LONG",
        "log((1+s)/(1-s)) = 2*s + s*z*(2/3 + z*p(z)), z = s*s",
        _ratio(_atanh_tail_2, mpf(2) / 5),
        lambda z: z,
        mpf(0),
        Z_LOG,
        {"f64": 8},
    ),
    Fit(
        "TANH",
        "tanh(x) = x + x*z*p(z), z = x*x, |x| <= 0.625",
        _ratio(lambda z: (mp.tanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, -mpf(1) / 3),
        lambda z: z,
        mpf(0),
        mpf("0.625") ** 2,
        {"f32": 4, "f64": 12},
    ),
    Fit(
        "ERF",
        "erf(x) = x + x*p(z), z = x*x, |x| <= 1",
        _ratio(lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1, 2 / mp.sqrt(mp.pi) - 1, 1e-50),
        lambda z: mpf(1),
        mpf(0),
        mpf(1),
        {"f32": 6, "f64": 15},
    ),
    Fit(
        "LOG_ERFC",
        "log(erfc(x)) = p(x), 1 <= x <= 4 (f32), 6 (f64)",
        lambda x: mp.log(mp.erfc(x)),
        mp.erfc,
        mpf(1),
        mpf(4),
        {"f32": 6, "f64": 20},
    ),
    Fit(
        "SIN",
        "sin(r) = r + r*z*p(z), z = r*r, |r| <= pi/4",
        _ratio(lambda z: (mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, -mpf(1) / 6),
        lambda z: z,
        mpf(0),
        QUARTER**2,
        {"f32": 3, "f64": 6},
    ),
    Fit(
        "COS",
        "cos(r) = 1 - z/2 + z*z*p(z), z = r*r, |r| <= pi/4",
        _ratio(lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / (z * z), mpf(1) / 24),
        lambda z: z * z / mp.cos(mp.sqrt(z)),
        mpf(0),
        QUARTER**2,
        {"f32": 2, "f64": 5},
    ),
    Fit(
        "ASIN",
        "asin(x) = x + x*z*p(z), z = x*x <= 1/4",
        _ratio(lambda z: (mp.asin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, mpf(1) / 6),
        lambda z: z,
        mpf(0),
        mpf("0.25"),
        {"f32": 4, "f64": 12},
    ),
    Fit(
        "ATAN",
        "atan(t) = t + t*z*p(z), z = t*t, |t| <= tan(pi/8)",
        _ratio(lambda z: (mp.atan(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, -mpf(1) / 3),
        lambda z: z,
        mpf(0),
        T_ATAN**2,
        {"f32": 4, "f64": 11},
    ),
]


def remez(
    f: Function, weight: Function, low: mpf, high: mpf, first: int, degree: int
) -> tuple[list[mpf], mpf]:
    """Return the coefficients of t**first … t**degree and the greatest weighted error."""
    count = degree - first + 1
    mid, half = (low + high) / 2, (high - low) / 2
    nodes = [mid - half * mp.cos(mp.pi * (k + mpf(1) / 2) / (count + 1)) for k in range(count + 1)]
    grid = [mid - half * mp.cos(mp.pi * k / (24 * count)) for k in range(24 * count + 1)]
    values = [(t, f(t), weight(t)) for t in grid]
    coefficients: list[mpf] = []
    worst = mpf(0)
    for _ in range(30):
        matrix = mp.matrix(count + 1, count + 1)
        right = mp.matrix(count + 1, 1)
        for row, t in enumerate(nodes):
            for k in range(count):
                matrix[row, k] = t ** (first + k)
            w = weight(t)
            matrix[row, count] = (-1) ** row / (w if abs(w) > mpf(10) ** -40 else mpf(10) ** -40)
            right[row] = f(t)
        solved = mp.lu_solve(matrix, right)
        coefficients = [solved[k] for k in range(count)]
        errors = [w * (value(coefficients, first, t) - y) for t, y, w in values]
        worst = max(map(abs, errors))
        peaks = alternating(errors, count + 1)
        if len(peaks) < count + 1:
            break
        moved = [grid[p] for p in peaks]
        if max(abs(a - b) for a, b in zip(moved, nodes, strict=True)) < mpf(10) ** -30:
            break
        nodes = moved
        if worst < abs(solved[count]) * mpf("1.001"):
            break
    return coefficients, worst


def alternating(errors: list[mpf], wanted: int) -> list[int]:
    """Positions of the greatest errors of alternating sign."""
    peaks: list[int] = []
    for n, e in enumerate(errors):
        if peaks and (errors[peaks[-1]] > 0) == (e > 0):
            if abs(e) > abs(errors[peaks[-1]]):
                peaks[-1] = n
        elif e:
            peaks.append(n)
    while len(peaks) > wanted:
        drop = 0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1
        peaks.pop(drop)
    return peaks


def value(coefficients: list[mpf], first: int, t: mpf) -> mpf:
    """Return the polynomial at a point."""
    total = mpf(0)
    for c in reversed(coefficients):
        total = total * t + c
    return total * t**first


def rounded(x: mpf, form: str) -> float:
    """Return the nearest number of a format."""
    if form == "f64":
        return float(x)
    return float(struct.unpack("f", struct.pack("f", float(x)))[0])


def _remainder(f: Function, fixed: tuple[float, ...]) -> Function:
    return lambda t: f(t) - sum((mpf(c) * t**k for k, c in enumerate(fixed)), mpf(0))


def fit(spec: Fit, form: str) -> tuple[list[float], mpf]:
    """Round the coefficients one by one, fitting the rest anew."""
    high = mpf(6) if spec.name == "LOG_ERFC" and form == "f64" else spec.high
    degree = spec.degree[form]
    fixed: list[float] = []
    for first in range(degree + 1):
        found, _ = remez(
            _remainder(spec.f, tuple(fixed)), spec.weight, spec.low, high, first, degree
        )
        fixed.append(rounded(found[0], form))
    points = [spec.low + (high - spec.low) * k / 997 for k in range(998)]
    exact = [mpf(c) for c in fixed]
    worst = max(abs(spec.weight(t) * (value(exact, 0, t) - spec.f(t))) for t in points)
    return fixed, worst


def main() -> None:
    """Fit everything, or only what the arguments name, which writes no file."""
    lines = [
        '"""Coefficients of the polynomials of `kernel.functions`, lowest power first. Written by tools/minimax.py."""',
        "",
        "# fmt: off",
    ]
    only = sys.argv[1:]
    for spec in FITS:
        if only and spec.name not in only:
            continue
        lines += ["", f"# {spec.meaning}"]
        for form in spec.degree:
            found, worst = fit(spec, form)
            print(
                f"{spec.name} {form} degree {spec.degree[form]}: 2**{float(mp.log(worst, 2)):.1f}",
                flush=True,
            )
            lines.append(f"{spec.name}_{form.upper()} = (")
            lines += [f"    {c!r}," for c in found]
            lines.append(")")
    if not only:
        OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
