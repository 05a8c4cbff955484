"""Memory between two pages that fault, and arrays seen through layouts."""

import mmap
import subprocess
import sys

import numpy as np
import pytest

from tapeout.ir.dtype import f32, i64
from tapeout.runtime.arena import Arena
from tapeout.support.errors import BudgetError

PAGE = mmap.PAGESIZE


@pytest.mark.parametrize("guard", [False, True])
@pytest.mark.parametrize("size", [0, 64, 4096, 4096 + 64, 100_000 // 64 * 64, 8 << 20])
def test_memory_is_zeroed_aligned_and_as_long_as_asked(size, guard):
    arena = Arena(size, guard)
    assert arena.bytes == arena.memory.size == size
    assert arena.address % 64 == 0
    assert not arena.memory.any()
    arena.memory[:] = 1
    if guard:
        assert (arena.address + size) % PAGE == 0


CHILD = """
import ctypes, sys
from tapeout.runtime.arena import Arena
size, offset = int(sys.argv[1]), int(sys.argv[2])
arena = Arena(size, guard=True)
print("ready", flush=True)
ctypes.c_uint8.from_address(arena.address + offset).value = 1
print("written", flush=True)
"""


@pytest.mark.parametrize(
    ("size", "offset", "faults"),
    [
        (PAGE, 0, False),
        (PAGE, PAGE - 1, False),
        (PAGE, PAGE, True),
        (PAGE, -1, True),
        (PAGE + 64, PAGE + 63, False),
        (PAGE + 64, PAGE + 64, True),
        (PAGE + 64, -PAGE, True),
    ],
)
def test_guard_pages_fault(size, offset, faults):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(size), str(offset)], capture_output=True, text=True
    )
    assert done.stdout == ("ready\n" if faults else "ready\nwritten\n"), done.stderr
    assert (done.returncode != 0) == faults


def test_views_follow_the_layout():
    arena = Arena(1024)
    arena.memory[64 : 64 + 96].view(np.float32)[:] = np.arange(24)
    plain = arena.view(64, f32, (2, 3, 4), (0, 1, 2))
    np.testing.assert_array_equal(plain, np.arange(24).reshape(2, 3, 4))
    channels_last = arena.view(64, f32, (2, 3, 4), (0, 2, 1))
    np.testing.assert_array_equal(channels_last, np.arange(24).reshape(2, 4, 3).transpose(0, 2, 1))
    assert arena.view(64, f32, (), ()).shape == ()
    assert arena.view(64, i64, (0, 3), (0, 1)).shape == (0, 3)
    plain[0, 0, 0] = 9
    assert channels_last[0, 0, 0] == 9


def test_poison_shows_as_nan():
    arena = Arena(256)
    arena.poison(64)
    assert not arena.memory[:64].any()
    assert np.isnan(arena.view(64, f32, (48,), (0,))).all()


def test_too_much_memory_is_an_error_of_ours():
    with pytest.raises(BudgetError, match=r"no memory for an arena of \d+ bytes"):
        Arena(1 << 60)
