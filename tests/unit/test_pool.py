"""The thread pool: every task runs once, whoever runs it, however many there are, awake or asleep."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time

import numpy as np
import pytest

from tapeout.codegen.assemble import assemble
from tapeout.codegen.machine import native
from tapeout.codegen.pool import emit_pool
from tapeout.runtime.jit import Library
from tapeout.runtime.pool import Pool

# Counts each task, and keeps who was the last to run it; `%args` holds counters, keeper, and how long a task takes.
_MARK = """
declare i64 @pthread_self()
define void @mark(ptr %args, i64 %lo, i64 %hi) nounwind {
entry:
  %counts = load ptr, ptr %args, align 8
  %who.at = getelementptr inbounds ptr, ptr %args, i64 1
  %who = load ptr, ptr %who.at, align 8
  %wait.at = getelementptr inbounds i64, ptr %args, i64 2
  %wait = load i64, ptr %wait.at, align 8
  %self = call i64 @pthread_self()
  br label %head
head:
  %i = phi i64 [ %lo, %entry ], [ %next, %waited ]
  %more = icmp slt i64 %i, %hi
  br i1 %more, label %body, label %end
body:
  %at = getelementptr inbounds i32, ptr %counts, i64 %i
  %old = atomicrmw add ptr %at, i32 1 monotonic
  %own = getelementptr inbounds i64, ptr %who, i64 %i
  store i64 %self, ptr %own, align 8
  br label %spin
spin:
  %n = phi i64 [ 0, %body ], [ %m, %spin ]
  %m = add i64 %n, 1
  call void asm sideeffect "", ""()
  %busy = icmp slt i64 %m, %wait
  br i1 %busy, label %spin, label %waited
waited:
  %next = add i64 %i, 1
  br label %head
end:
  ret void
}
define void @rounds(ptr %pool, ptr %args, i64 %tasks, i64 %rounds) nounwind {
entry:
  %run = load ptr, ptr %pool, align 8
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %n, %head ]
  call void %run(ptr %pool, ptr @mark, ptr %args, i64 %tasks)
  %n = add i64 %i, 1
  %more = icmp slt i64 %n, %rounds
  br i1 %more, label %head, label %end
end:
  ret void
}
"""


@pytest.fixture(scope="module")
def code() -> bytes:
    return assemble(emit_pool(native()), native())


class Marker:
    """Runs rounds of jobs on a pool and looks at what they did."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.library = Library([assemble(_MARK, native())], ["mark", "rounds"])
        kinds = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        self.call = ctypes.CFUNCTYPE(None, *kinds)(self.library["rounds"])

    def run(self, tasks: int, rounds: int = 1, wait: int = 0) -> np.ndarray:
        """Return which thread ran each task last; fail unless each ran once a round."""
        counts, who = np.zeros(tasks + 1, np.int32), np.zeros(tasks + 1, np.int64)
        args = (ctypes.c_int64 * 3)(counts.ctypes.data, who.ctypes.data, wait)
        with self.pool.lock:
            self.call(self.pool.address, ctypes.addressof(args), tasks, rounds)
        assert counts[:tasks].tolist() == [rounds] * tasks
        assert counts[tasks] == 0
        return who[:tasks]


@pytest.fixture(scope="module", params=[1, 2, 3, 7])
def marker(request: pytest.FixtureRequest, code: bytes) -> Marker:
    return Marker(Pool(request.param, code))


@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 7, 8, 9, 33, 1000])
def test_every_task_runs_once_a_round(marker: Marker, tasks: int) -> None:
    marker.run(tasks, rounds=200)


def test_a_single_task_stays_on_the_calling_thread(marker: Marker) -> None:
    assert marker.run(1, rounds=50).tolist() == [threading.get_ident()]


def test_sleepers_wake(marker: Marker) -> None:
    for _ in range(5):
        time.sleep(0.01)
        marker.run(16, wait=2000)


def test_jobs_of_all_sizes_after_each_other(marker: Marker) -> None:
    """So that threads that are late meet jobs with other claims than theirs."""
    for n in range(300):
        marker.run(2 + n * 37 % 101, rounds=3)


def test_callers_take_turns(marker: Marker) -> None:
    faults: list[BaseException] = []

    def work() -> None:
        try:
            for n in range(100):
                marker.run(5 + n % 7)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults


def test_threads_end_with_their_pool(code: bytes) -> None:
    gc.collect()
    before = _threads()
    pool = Pool(4, code)
    Marker(pool).run(9, rounds=10)
    assert _threads() == before + 3
    del pool
    gc.collect()
    assert _threads() <= before


def _threads() -> int:
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("no list of threads")
    return len(os.listdir("/proc/self/task"))
