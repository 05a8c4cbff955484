"""Runs in a process of its own for test_memory.py: what it tries may end with a signal.

python -m tests.e2e.memory_child guarded PAGES_LESS    train between inaccessible pages
python -m tests.e2e.memory_child trapped LIBRARY        count what native code allocates
"""

from __future__ import annotations

import ctypes
import json
import mmap
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

import tapeout
from tapeout.runtime.arena import Arena
from tests.e2e.networks import batch_of, load

if TYPE_CHECKING:
    from tapeout.runtime.executable import Executable


def trainer(**options: Any) -> tapeout.Trainer:
    return tapeout.Trainer(
        load("lenet"),
        loss=tapeout.losses.cross_entropy("logits"),
        optimizer=tapeout.optimizers.adam(),
        clip_norm=1.0,
        **options,
    )


def guarded(pages_less: int) -> None:
    """Take three steps and evaluate, in an arena shortened by some pages, and say how long it should be."""
    t, batch = trainer(guard=True), batch_of("lenet", 0)
    memory = t.memory_for(N=16)
    session = t.session
    assert session.arena.bytes == memory.total
    if pages_less:
        short = Arena(memory.total - pages_less * mmap.PAGESIZE, guard=True)
        size = min(session.layout.bytes, short.bytes)
        short.memory[:size] = session.arena.memory[:size]
        # Lies, so that it is taken: what goes beyond lies in the page that nobody may touch.
        whole = np.frombuffer(short._map, np.uint8)
        start = short.address - whole.ctypes.data
        short.bytes, short.memory = memory.total, whole[start : start + memory.total]
        for entry in session._entries:
            entry.bind(short)
        print("shortened", flush=True)
    losses = [t.step(batch)["loss"] for _ in range(3)]
    losses.append(t.evaluate(batch)["loss"])
    assert t.session.arena.bytes == t.memory.total == memory.total
    print(json.dumps({"losses": losses, "total": memory.total}))


def trapped(path: str) -> None:
    """Call every entry point through the trap, and print how often each allocated."""
    library = ctypes.CDLL(path)
    call = library.trap_call
    call.argtypes = [ctypes.c_void_p] * 5
    control = ctypes.cast(library.allocates, ctypes.c_void_p).value
    library.trap_hits.restype = ctypes.c_long
    call(control, None, None, None, None)
    found: dict[str, Any] = {"control": library.trap_hits()}

    t, batch = trainer(), batch_of("lenet", 0)
    t.memory_for(N=16)
    t._entry_for("step", batch)
    for kind in ("step", "gradients", "evaluate", "predict"):
        entry = t._entry_for(kind, batch)
        native = entry._native
        arrays = {n: np.ascontiguousarray(batch[n]) for n in entry.program.inputs}
        for number in range(3):
            call(*arguments(native, arrays))
            found[f"{kind} {number}"] = library.trap_hits()
    found["threads"] = t.threads
    print(json.dumps(found))


def arguments(native: Executable, arrays: dict[str, np.ndarray]) -> list[int | None]:
    """Return the address of an entry point, and what it is called with."""
    native._set_inputs(arrays)
    pool = native._pool
    assert (pool is None) == (native.threads == 1), "made when a specialisation is prepared"
    return [
        ctypes.cast(native._entry, ctypes.c_void_p).value,
        native.arena.address,
        ctypes.addressof(native._inputs),
        None if pool is None else pool.address,
        int(native._data.ctypes.data),
    ]


if __name__ == "__main__":
    guarded(int(sys.argv[2])) if sys.argv[1] == "guarded" else trapped(sys.argv[2])
