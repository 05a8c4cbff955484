"""Options of a compilation: what they are decides the caches' keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tapeout.kernel import target as targets
from tapeout.support import env
from tapeout.support.errors import OptionError, nearest

if TYPE_CHECKING:
    from tapeout.kernel.target import Target


@dataclass(frozen=True)
class Options:
    """How to compile.

    Attributes:
        target: The class of machine.
        checked: Test the bounds of every memory access.
        check_nans: Test every kernel's output for NaN.
        verify: 0 never, 1 between stages, 2 also inside passes.
        dump_dir: Folder for each stage's text, or None.
        dump: Stage names to write, or `all`.
        cache: Whether caches on disk are used.
        direct: Take no sum over windows by fewer products than it has; such sums round otherwise.
    """

    target: Target
    checked: bool = field(default_factory=env.checked)
    check_nans: bool = field(default_factory=env.check_nans)
    verify: int = field(default_factory=env.verify_level)
    dump_dir: Path | None = field(default_factory=env.dump_dir)
    dump: str = field(default_factory=env.dump)
    cache: bool = True
    direct: bool = field(default_factory=env.direct)

    @property
    def key(self) -> str:
        """What of the options decides the code."""
        t = self.target
        machine = f"{t.name} {t.triple} {t.cpu} {t.features} winograd={t.winograd}"
        return f"{machine} checked={self.checked} nans={self.check_nans} direct={self.direct}"


def resolve_target(name: str) -> Target:
    """Return the target class called `name`; `native` is the best that this machine runs.

    Raises:
        OptionError: There is none of that name.
    """
    if name == "native":
        from tapeout.codegen.machine import native

        return native()
    known = targets.BY_NAME | targets.LEVELS
    if name not in known:
        raise OptionError(f"no target is called {name!r}", hint=nearest(name, ["native", *known]))
    return known[name]
