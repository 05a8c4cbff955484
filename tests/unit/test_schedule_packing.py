"""The search for an order in which blocks of memory are placed."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tapeout.schedule.memory import Demand, plan
from tapeout.schedule.packing import improved

SPANS = st.tuples(st.integers(1, 40), st.integers(0, 12), st.integers(0, 6))


@given(st.lists(SPANS, min_size=1, max_size=12))
def test_the_order_is_a_permutation_and_the_same_again(found: list[tuple[int, int, int]]) -> None:
    blocks = [(64 * size, first, first + length) for size, first, length in found]
    order = improved(blocks)
    assert sorted(order) == list(range(len(blocks)))
    assert improved(blocks) == order


@given(st.lists(SPANS, min_size=1, max_size=12))
def test_blocks_that_live_at_once_never_overlap(found: list[tuple[int, int, int]]) -> None:
    demands = [Demand(f"b{n}", 64 * s, a, a + k) for n, (s, a, k) in enumerate(found)]
    offsets, end = plan(demands, 64)
    for d, e in itertools.combinations(demands, 2):
        apart = d.last < e.first or e.last < d.first
        below = offsets[d.name] + d.bytes <= offsets[e.name]
        assert apart or below or offsets[e.name] + e.bytes <= offsets[d.name]
    assert end == max(offsets[d.name] + d.bytes for d in demands)


def test_a_gap_that_the_largest_first_leaves_is_closed() -> None:
    # Largest first puts both threes below and then has no room for the pair of twos that outlives them.
    blocks = [(192, 0, 1), (192, 2, 3), (128, 1, 2), (128, 3, 4), (64, 0, 4)]
    demands = [Demand(str(n), size, a, b) for n, (size, a, b) in enumerate(blocks)]
    _, end = plan(demands)
    assert end == 384
