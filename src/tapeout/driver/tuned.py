"""What tuning found on this machine: for kernels by structure, which way to lower them runs fastest.

One table per machine, class of target and version of the compiler. No choice changes a bit of any result, so a table can be used,
extended, lost or left half made at any time.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.codegen.cache import store_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.kernel.target import Target


@dataclass(frozen=True)
class Winner:
    """The best way that was found to lower a kernel.

    Attributes:
        choice: Its name, as `schedule.lower.choices` gives it.
        ratio: Its time divided by that of the default.
        done: Whether every choice was tried.
    """

    choice: str
    ratio: float
    done: bool


def winners(target: Target) -> dict[str, Winner]:
    """Return the table of this machine by the key of a kernel's structure."""
    blob = store_of("tuned").get(_key(target))
    if blob is None:
        return {}
    try:
        return {form: Winner(*row) for form, row in json.loads(blob).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def keep(target: Target, found: Mapping[str, Winner]) -> None:
    """Add to the table, over what it holds of the same kernels; whole or not at all."""
    table = {**winners(target), **found}
    rows = {form: [w.choice, round(w.ratio, 4), w.done] for form, w in sorted(table.items())}
    store_of("tuned").put(_key(target), json.dumps(rows).encode())


def choices(target: Target) -> dict[str, str]:
    """Return how to lower kernels other than by default."""
    return {form: w.choice for form, w in winners(target).items() if w.ratio < 1.0}


def digest(target: Target) -> str:
    """Return what stands for all choices; empty if nothing has been tuned."""
    found = choices(target)
    if not found:
        return ""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def _key(target: Target) -> str:
    from tapeout.codegen.assemble import version
    from tapeout.codegen.machine import resolve
    from tapeout.driver.cache import sources
    from tapeout.driver.ceiling import processor

    facts = f"tuned 1\n{version()}\n{sources()}\n{resolve(target)!r}\n{processor()}\n"
    return hashlib.sha256(facts.encode()).hexdigest()
