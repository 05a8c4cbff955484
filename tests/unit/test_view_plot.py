"""Plots: round ticks, honest curves, well-formed files."""

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.support.units import bytes_text, count_text, seconds_text
from tapeout.view.plot import Curve, Panel, render, smoothed, ticks

NUMBERS = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)


@given(NUMBERS, NUMBERS)
def test_ticks_are_round_and_cover(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    found = ticks(low, high)
    assert 2 <= len(found) <= 14
    assert found == sorted(set(found))
    if high > low and high - low > 1e-4 * max(abs(low), abs(high)):
        assert found[0] <= low + 1e-6 * (high - low)
        assert found[-1] >= high - 1e-6 * (high - low)


def test_ticks_of_epochs_are_whole() -> None:
    assert all(t == int(t) for n in (1, 2, 3, 7, 15, 20, 300) for t in ticks(0, n, whole=True))


@pytest.mark.parametrize("window", [1, 3, 50])
def test_smoothed_is_the_mean_of_the_window(window: int) -> None:
    values = [math.sin(i) for i in range(40)]
    for i, found in enumerate(smoothed(values, window)):
        part = values[max(0, i + 1 - window) : i + 1]
        assert found == pytest.approx(sum(part) / len(part))


def test_smoothed_skips_what_is_not_finite() -> None:
    assert smoothed([1.0, math.nan, 3.0], 3) == [1.0, 1.0, 2.0]
    assert math.isnan(smoothed([math.inf], 2)[0])


def test_plot_is_xml_and_escapes() -> None:
    curve = Curve("<each & every>", [0.0, 1.0, 2.0], [1.0, math.nan, 0.5], marks=True)
    root = ET.fromstring(
        render(
            "a < b",
            [Panel("loss", "epoch", [curve]), Panel("accuracy", "epoch", [curve], percent=True)],
        )
    )
    paths = [e.get("d", "") for e in root.iter() if "curve" in e.get("class", "") and e.get("d")]
    assert all(d.count("M") == 2 for d in paths)  # the gap


def test_long_curves_keep_their_peaks() -> None:
    ys = [0.0] * 50_000
    ys[31_111] = 9.0
    text = render("t", [Panel("loss", "epoch", [Curve("c", list(map(float, range(50_000))), ys)])])
    assert len(text) < 100_000
    root = ET.fromstring(text)
    (path,) = [
        e.get("d", "")
        for e in root.iter()
        if e.tag.endswith("path") and "curve" in e.get("class", "")
    ]
    heights = [float(p.split(" ")[1]) for p in path.replace("M", "L").split("L")[1:]]
    assert min(heights) < max(heights) - 100


def test_empty_plot_has_axes() -> None:
    ET.fromstring(render("t", [Panel("loss", "epoch", [])]))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (bytes_text(0), "0 B"),
        (bytes_text(1023), "1023 B"),
        (bytes_text(1024), "1.0 KiB"),
        (bytes_text(5 << 20), "5.0 MiB"),
        (count_text(999), "999"),
        (count_text(1000), "1k"),
        (count_text(61706), "61.7k"),
        (count_text(999_700), "1M"),
        (seconds_text(1e-5), "10 µs"),
        (seconds_text(0.0123), "12.3 ms"),
        (seconds_text(59.96), "1 min 00 s"),
        (seconds_text(3600), "1 h 00 min"),
    ],
)
def test_units(found: str, expected: str) -> None:
    assert found == expected
