"""Turns kernels of level T into loops of level L."""

from __future__ import annotations

from tapeout.schedule.lower.lower import choices, lower
from tapeout.schedule.lower.result import Lowered, LoweredLaunch, Scratch

__all__ = ["Lowered", "LoweredLaunch", "Scratch", "choices", "lower"]
