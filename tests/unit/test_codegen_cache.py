"""The caches on disk: what is kept, what is dropped, and what happens where nothing can be kept."""

import os
import stat

import numpy as np
import pytest

from tapeout.codegen import assemble, cache, cpu, machine
from tapeout.ir.dtype import f32
from tests.native import const, kernel, load, op, param, store

K1, K2, K3 = ("ab" * 32, "ac" * 32, "0f" * 32)


@pytest.fixture
def kept(empty_cache):
    return cache.store_of("kernels")


def small(value=1.0, name="k_small"):
    return kernel(
        [param("x", f32, 4), param("o", f32, 4, "w")],
        store("o", 0, op("mul", load("x", 0), const(value, f32))),
        name=name,
    )


def test_what_was_put_comes_back(kept):
    assert kept.get(K1) is None
    kept.put(K1, b"object code")
    kept.put(K2, b"")
    assert kept.get(K1) == b"object code"
    assert kept.get(K2) == b""
    assert kept.get(K3) is None
    assert kept.usage().files == 2


def test_folders_belong_to_the_user_alone(kept):
    kept.put(K1, b"x")
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700
    assert not [f for f in kept.folder.rglob("*") if stat.S_IMODE(f.stat().st_mode) & 0o077]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "long"])
def test_damaged_files_are_dropped(kept, damage):
    kept.put(K1, b"object code" * 100)
    (path,) = (f for f in kept.folder.rglob("*") if f.is_file())
    blob = path.read_bytes()
    flipped = bytes([blob[0] ^ 1]) + blob[1:]
    path.write_bytes({"cut": blob[:-1], "flip": flipped, "empty": b"", "long": blob + b"x"}[damage])
    assert kept.get(K1) is None
    assert not path.exists()
    kept.put(K1, b"again")
    assert kept.get(K1) == b"again"


def test_what_was_used_longest_ago_goes_first(empty_cache):
    kept = cache.Store(empty_cache / "kernels", limit=1000)
    for n in range(6):
        key = f"{n:02d}" * 32
        kept.put(key, bytes(150))
        path = kept.folder / key[:2] / key[2:]
        os.utime(path, ns=(n * 10**9, n * 10**9))
        if n == 3:
            kept.get("00" * 32)  # now it is the newest
    assert kept.usage().bytes <= 1000
    assert kept.get("00" * 32) is not None
    assert kept.get("01" * 32) is None
    assert kept.get("05" * 32) is not None


def test_nothing_is_kept_in_a_folder_that_others_can_write(kept):
    kept.put(K1, b"x")
    kept.folder.chmod(0o777)
    assert kept.get(K1) is None
    kept.put(K2, b"y")
    kept.folder.chmod(0o700)
    assert kept.get(K1) == b"x"
    assert kept.get(K2) is None


def test_without_a_folder_everything_still_works(tmp_path, monkeypatch, rng):
    """The cache folder's place is taken by a file: nobody can make it, not even root."""
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("TAPEOUT_CACHE_DIR", str(blocked))
    kept = cache.store_of("kernels")
    kept.put(K1, b"x")
    assert kept.get(K1) is None
    assert kept.usage().files == 0
    k = small()
    assert cpu.compile_objects({k.name: k}, machine.native(), cache=kept)[k.name]


def test_show_and_clear(empty_cache):
    cache.store_of("kernels").put(K1, bytes(100))
    cache.store_of("programs").put(K2, bytes(50))
    shown = cache.show()
    assert {n: u.files for n, u in shown.items()} == {
        "kernels": 1,
        "programs": 1,
        "machine": 0,
        "tuned": 0,
    }
    assert shown["kernels"].bytes == 132
    assert shown["kernels"].folder == empty_cache / "kernels"
    assert cache.clear() == shown
    assert all(u.files == 0 for u in cache.show().values())


def test_kernels_come_from_the_cache(kept, monkeypatch):
    k = small()
    first = cpu.compile_objects({k.name: k}, machine.native(), cache=kept)
    monkeypatch.setattr(cpu, "emit_kernel", None)  # whoever compiles again fails
    assert cpu.compile_objects({k.name: k}, machine.native(), cache=kept) == first


@pytest.mark.parametrize("change", ["text", "checked", "target", "version"])
def test_whatever_decides_the_code_decides_the_name(kept, change, monkeypatch):
    from tapeout.kernel.target import AVX2, GENERIC

    cpu.compile_objects({"k_small": small()}, AVX2, cache=kept)
    assert kept.usage().files == 1
    if change == "version":
        monkeypatch.setattr(assemble, "version", lambda: "another")
    cpu.compile_objects(
        {"k_small": small(2.0 if change == "text" else 1.0)},
        GENERIC if change == "target" else AVX2,
        checked=change == "checked",
        cache=kept,
    )
    assert kept.usage().files == 2


def test_object_code_is_the_same_every_time():
    k = small()
    first, again = (cpu.compile_objects({k.name: k}, machine.native())[k.name] for _ in range(2))
    assert first == again


def test_text_that_llvm_refuses_is_an_error_of_ours():
    from tapeout.support.errors import CompileError

    with pytest.raises(CompileError, match="LLVM refuses"):
        assemble.assemble("define void @f() { ret i32 0 }", machine.native())


def test_objects_hold_what_was_asked():
    k = small(3.0)
    code = cpu.compile_objects({k.name: k}, machine.native())[k.name]
    assert code[:4] == b"\x7fELF" or np.frombuffer(code[:4], np.uint32)[0] in (0xFEEDFACF,)
