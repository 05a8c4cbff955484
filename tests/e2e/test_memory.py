"""Memory: the arena is as long as was said, nothing is touched beside it, and a step allocates nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tapeout
from tapeout.api import session as sessions
from tests.e2e.networks import ROOT, batch_of, load, make_optimizer, record

CHECKED = pytest.mark.parametrize("checked", [False, True], ids=["user", "checked"])


def child(
    *arguments: str, checked: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "tests.e2e.memory_child", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": paths,
            "TAPEOUT_CHECKED": str(int(checked)),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )


def trainer(optimizer: str = "adam", **options: Any) -> tapeout.Trainer:
    return tapeout.Trainer(
        load("lenet"),
        loss=tapeout.losses.cross_entropy("logits"),
        optimizer=make_optimizer(record("lenet", optimizer)["optimizer"]),
        **options,
    )


# --- what is said ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("optimizer", "moments"), [("sgd", 1), ("adam", 2)])
def test_the_figures_add_up(optimizer: str, moments: int) -> None:
    t = trainer(optimizer)
    with pytest.raises(tapeout.OptionError, match="memory_for"):
        _ = t.memory
    memory = t.memory_for(N=16)
    parts = memory.parameters + memory.optimizer_state + memory.gradients + memory.activations
    assert memory.total == parts
    floats = sum(v.type.size for v in t.model.parameters.values())
    assert memory.parameters == 4 * floats
    assert moments * 4 * floats <= memory.optimizer_state <= moments * 4 * floats + 4096
    assert memory.activations > 16 * 6 * 28 * 28 * 4  # the first convolution's result at least
    assert t.steps_done == 0
    t.step(batch_of("lenet", 0))
    assert t.memory == memory
    assert t.session.arena.bytes == memory.total
    assert t.memory_for(N=32).total > memory.total > t.memory_for(N=1).total


def test_what_is_said_is_what_is_mapped() -> None:
    t = trainer(guard=True)
    memory = t.memory_for(N=16)
    assert t.session.arena.bytes == memory.total
    assert len(t.session.arena.memory) == memory.total
    for _ in range(3):
        t.step(batch_of("lenet", 0))
    t.evaluate(batch_of("lenet", 0))
    assert t.session.arena.bytes == memory.total == t.memory.total


# --- nothing beside it -----------------------------------------------------------------------------


@CHECKED
def test_the_arena_is_long_enough_and_no_longer(checked: bool) -> None:
    """Between inaccessible pages: three steps and an evaluation run; one page less is one too few."""
    whole = child("guarded", "0", checked=checked)
    assert whole.returncode == 0, whole.stderr
    told = json.loads(whole.stdout)
    assert told["losses"][1] < told["losses"][0]
    assert told["total"] > 1_000_000

    short = child("guarded", "1", checked=checked)
    assert short.stdout == "shortened\n"
    assert short.returncode in (-signal.SIGSEGV, -signal.SIGBUS), short.stderr


# --- no allocation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_nothing_is_allocated_once_a_specialisation_is_prepared(
    tmp_path: Path, threads: int
) -> None:
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler and glibc, for the trap")
    trap = tmp_path / "trap.so"
    source = Path(__file__).with_name("trap.c")
    built = subprocess.run(
        [compiler, "-O1", "-fPIC", "-shared", "-fno-builtin", "-o", trap, source],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    done = child("trapped", str(trap), LD_PRELOAD=str(trap), TAPEOUT_THREADS=str(threads))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("threads") == threads
    assert found.pop("control") >= 2, "the trap does not see allocations"
    assert set(found.values()) == {0}, found


def test_the_code_of_a_step_calls_nothing_that_allocates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The objects' undefined symbols, read from their symbol tables: kernels, the pool's entry, nothing else."""
    objects: dict[str, bytes] = {}
    compile_graph = sessions.compile_graph

    def watch(*arguments: Any) -> Any:
        compiled = compile_graph(*arguments)
        objects.update(compiled.objects)
        return compiled

    monkeypatch.setattr(sessions, "compile_graph", watch)
    t = trainer(clip_norm=1.0, checked=False)
    t.step(batch_of("lenet", 0))
    t.evaluate(batch_of("lenet", 0))
    if not next(iter(objects.values())).startswith(b"\x7fELF"):
        pytest.skip("objects are not ELF here")
    pool = objects.pop("tapeout__pool")
    defined, wanted = set(), set()
    for code in objects.values():
        here, there = symbols(code)
        defined |= here
        wanted |= there
    assert wanted - defined <= {"tapeout_pool_run", "memcpy", "memset", "memmove"}
    assert "tapeout_pool_run" in symbols(pool)[0] or "tapeout_pool_run" not in wanted


def symbols(code: bytes) -> tuple[set[str], set[str]]:
    """Return the global symbols that a 64-bit ELF object defines, and those that it wants."""
    (table,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, table + i * size) for i in range(count)]
    defined, wanted = set(), set()
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind != 2:  # SHT_SYMTAB
            continue
        names = sections[link][4]
        for at in range(offset + 24, offset + length, 24):
            name, info, _, section = struct.unpack_from("<IBBH", code, at)
            text = code[names + name : code.index(b"\0", names + name)].decode()
            if info >> 4 == 0 or not text:  # local
                continue
            (defined if section else wanted).add(text)
    return defined, wanted
