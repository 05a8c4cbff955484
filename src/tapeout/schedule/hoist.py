"""Launches of a loop that do the same in every round are done once before it, such as packing a weight for a matrix product."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.kernel.program import Branch, Launch, Loop

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from tapeout.kernel.loops import Kernel
    from tapeout.kernel.program import Item
    from tapeout.schedule.nest import View


def hoisted(
    items: Sequence[Item],
    kernels: Mapping[str, Kernel],
    views: Mapping[str, View],
    outside: Container[str],
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Return the launches to do before a loop, and what stays inside.

    A launch can go if nothing that it reads is written inside or moves, and what it writes is written by it alone, whole, and
    read inside only.

    Args:
        items: The body of the loop.
        kernels: By symbol.
        views: Parts of buffers; none of them is touched outside.
        outside: Names of buffers that have a content before the loop, or are read after it.
    """
    writers: dict[str, int] = {}
    for item in items:
        for name in _written(item, kernels):
            whole = _whole(name, views)
            writers[whole] = writers.get(whole, 0) + 1
    before: list[Item] = []
    inside: list[Item] = []
    for item in items:
        if isinstance(item, Launch) and _may_go(item, kernels, writers, views, outside):
            before.append(item)
            for name in _written(item, kernels):
                del writers[name]
        else:
            inside.append(item)
    return tuple(before), tuple(inside)


def _may_go(
    launch: Launch,
    kernels: Mapping[str, Kernel],
    writers: Mapping[str, int],
    views: Mapping[str, View],
    outside: Container[str],
) -> bool:
    params = kernels[launch.kernel].params
    for name, p in zip(launch.args, params, strict=True):
        if name in views or p.access == "rw":
            return False
        if p.access == "w" and (writers[name] != 1 or name in outside):
            return False
        if p.access == "r" and name in writers:
            return False
    return True


def _whole(name: str, views: Mapping[str, View]) -> str:
    """Return the name of what a buffer is a part of at last."""
    while name in views:
        name = views[name].of.name
    return name


def _written(item: Item, kernels: Mapping[str, Kernel]) -> Iterator[str]:
    """Return the buffers that an item writes, those inside of loops and branches included."""
    if isinstance(item, Launch):
        params = kernels[item.kernel].params
        yield from (n for n, p in zip(item.args, params, strict=True) if "w" in p.access)
    elif isinstance(item, Loop):
        for inner in item.items:
            yield from _written(inner, kernels)
    elif isinstance(item, Branch):
        for inner in (*item.then, *item.otherwise):
            yield from _written(inner, kernels)
