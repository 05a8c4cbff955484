"""From which item to which each buffer is needed. Items are numbered as in the text of a program.

What a loop reads or writes but does not make anew in every round is needed for the whole loop; a part stands for what it is a part of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.kernel.program import Branch, Check, Launch, Loop

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tapeout.kernel.program import Item
    from tapeout.schedule.model import Region
    from tapeout.schedule.nest import View

Lives = dict[str, tuple[int, int]]


def lives_of(
    items: Sequence[Item],
    views: Mapping[str, View],
    outputs: Iterable[str],
    regions: Sequence[Region],
) -> Lives:
    """Return the first and the last item that need each buffer.

    Args:
        items: In order.
        views: The parts of buffers, by name.
        outputs: Names of buffers that are needed after the program.
        regions: Parts of a region of gradients live as long as the whole is read.
    """
    found = _Lives(views)
    end = found.walk(items, 0, ())
    for name in outputs:
        found.lives[name] = found.lives.get(name, (-1, -1))[0], end
    _extend_regions(found.lives, regions)
    return found.lives


class _Lives:
    def __init__(self, views: Mapping[str, View]) -> None:
        self.views = views
        self.lives: Lives = {}

    def walk(self, items: Iterable[Item], number: int, loops: tuple[int, ...]) -> int:
        """Number items from `number` on and note what they touch; `loops` are the numbers of the loops around."""
        for item in items:
            here, number = number, number + 1
            if isinstance(item, Launch):
                for name in item.args:
                    self._read_or_write(name, here, loops)
            elif isinstance(item, Loop):
                number = self.walk(item.items, number, (*loops, here))
                self._close(here, number - 1)
            else:
                self._read_or_write(item.buffer, here, loops)
                if isinstance(item, Branch):
                    number = self.walk((*item.then, *item.otherwise), number, loops)
                else:
                    assert isinstance(item, Check)
        return number

    def _read_or_write(self, name: str, number: int, loops: tuple[int, ...]) -> None:
        """Note that an item touches a buffer, and with it what the buffer is a part of."""
        self.touch(name, number)
        view = self.views.get(name)
        while view is not None:
            # What a loop moves in is needed from before its first round; `_close` sees to the last.
            at = loops[view.level] if view.step else number
            self.touch(view.of.name, at)
            self.touch(view.of.name, number)
            view = self.views.get(view.of.name)

    def touch(self, name: str, number: int) -> None:
        """Note that an item touches a buffer."""
        first, last = self.lives.get(name, (number, number))
        self.lives[name] = min(first, number), max(last, number)

    def _close(self, start: int, last: int) -> None:
        """Let what comes into a loop from before live to its end."""
        for name, (first, until) in self.lives.items():
            if first <= start <= until < last:
                self.lives[name] = first, last


def _extend_regions(lives: Lives, regions: Sequence[Region]) -> None:
    for r in regions:
        if r.home.space != "gradient":
            continue
        parts = [name for name, _ in r.parts if name in lives]
        last = lives.get(r.home.name, (-1, -1))[1]
        for name in parts:
            lives[name] = lives[name][0], max(lives[name][1], last)
        ends = [lives[name] for name in parts]
        lives[r.home.name] = min(a for a, _ in ends), max(b for _, b in ends)
