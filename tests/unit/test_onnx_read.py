"""Files that are no model, and data outside of the model's folder."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper

from tapeout.frontend.onnx import load
from tapeout.oracle import graph as oracle
from tapeout.support.errors import OnnxImportError, OptionError, TapeoutError
from tests.onnx_models import parsed

SIMPLE = "g (float[N] x) => (float[N] y) {y = Add (x, w)}"


def simple() -> onnx.ModelProto:
    return parsed(SIMPLE, w=np.arange(1, dtype=np.float32))


NOT_MODELS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is empty"),
    "text": (b"hello, this is no model at all", "not an ONNX"),
    "random": (bytes(range(256)) * 4, "not an ONNX"),
    "zip": (b"PK\x03\x04" + b"\0" * 100, "PyTorch checkpoint"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "page": (b"<!DOCTYPE html><html></html>", "web page"),
    "json": (b'{"a": 1}', "JSON"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "no graph": (onnx.ModelProto(ir_version=8).SerializeToString(), "no graph"),
    "truncated": (simple().SerializeToString()[:-7], "cut short|no graph|not an ONNX"),
}


@pytest.mark.parametrize("name", NOT_MODELS)
@pytest.mark.parametrize("form", ["path", "bytes"])
def test_what_is_no_model(name: str, form: str, tmp_path: Path) -> None:
    data, message = NOT_MODELS[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(OnnxImportError, match=message) as caught:
        load(path if form == "path" else data)
    assert (str(path) if form == "path" else "<bytes>") in str(caught.value)


def test_truncated_anywhere() -> None:
    data = parsed(SIMPLE, w=np.ones(40, np.float32)).SerializeToString()
    for end in range(0, len(data), 3):
        with pytest.raises(TapeoutError):
            load(data[:end])


def test_flipped_bits_never_crash() -> None:
    data = bytearray(parsed(SIMPLE, w=np.ones(8, np.float32)).SerializeToString())
    for at in range(len(data)):
        for bit in (0, 3, 7):
            data[at] ^= 1 << bit
            with suppress(TapeoutError):
                load(bytes(data))
            data[at] ^= 1 << bit


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(OnnxImportError, match="No such file") as caught:
        load(tmp_path / "missing.onnx")
    assert "missing.onnx" in str(caught.value)


def test_a_folder_and_a_pipe(tmp_path: Path) -> None:
    with pytest.raises(OnnxImportError, match="folder"):
        load(tmp_path)
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    with pytest.raises(OnnxImportError, match="not a regular file"):
        load(pipe)


def test_no_model_at_all() -> None:
    with pytest.raises(OptionError, match="got int"):
        load(7)  # type: ignore[arg-type]


def test_opsets() -> None:
    made = simple()
    made.opset_import[0].version = 9999
    with pytest.raises(OnnxImportError, match="opset 9999: 7 to 28 are understood"):
        load(made)
    del made.opset_import[:]
    with pytest.raises(OnnxImportError, match="cut short"):
        load(made)
    made.opset_import.append(onnx.helper.make_opsetid("", 13))
    made.opset_import.append(onnx.helper.make_opsetid("ai.onnx", 14))
    with pytest.raises(OnnxImportError, match="two versions"):
        load(made)


def test_foreign_domains_that_nobody_uses() -> None:
    made = simple()
    made.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    assert load(made).parameters


# --- external data ---------------------------------------------------------------------------------


def external(folder: Path, location: str, *, offset: int = 0, length: int | None = None) -> Path:
    """Write a model whose tensor of four floats lies in another file."""
    made = parsed(
        "g (float[4] x) => (float[4] y) {y = Add (x, w)}", w=np.arange(4, dtype=np.float32)
    )
    tensor = made.graph.initializer[0]
    raw = tensor.raw_data
    external_data_helper.set_external_data(tensor, location, offset, length)
    tensor.ClearField("raw_data")
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    (folder.parent / "outside.bin").write_bytes(raw)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model's data, and the same data outside of it."""
    inside = tmp_path / "model"
    (inside / "deep").mkdir(parents=True)
    raw = np.arange(4, dtype="<f4").tobytes()
    (inside / "w.bin").write_bytes(raw)
    (inside / "deep" / "w.bin").write_bytes(b"\0" * 8 + raw)
    return inside


@pytest.mark.parametrize(
    ("location", "offset", "length"),
    [("w.bin", 0, 16), ("w.bin", 0, None), ("./w.bin", 0, 16), ("deep/w.bin", 8, 16)],
)
def test_external_data(folder: Path, location: str, offset: int, length: int | None) -> None:
    graph = load(external(folder, location, offset=offset, length=length))
    result = oracle.run(graph, {"x": np.zeros(4, np.float32)})
    np.testing.assert_array_equal(result.outputs["y"], np.arange(4, dtype=np.float32))


def test_external_data_are_kept_for_writing_back(folder: Path) -> None:
    graph = load(external(folder, "w.bin"))
    assert isinstance(graph.origin, bytes)
    again = load(graph.origin)
    np.testing.assert_array_equal(again.variable["w"].initial, np.arange(4, dtype=np.float32))


def link(folder: Path) -> str:
    (folder / "link.bin").symlink_to(folder.parent / "outside.bin")
    return "link.bin"


def hard_link(folder: Path) -> str:
    outside = folder.parent / "outside.bin"
    outside.write_bytes(b"\0" * 16)
    os.link(outside, folder / "hard.bin")
    return "hard.bin"


def linked_folder(folder: Path) -> str:
    (folder / "sub").symlink_to(folder.parent)
    return "sub/outside.bin"


def pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe.bin")
    return "pipe.bin"


WAYS_OUT: dict[str, Callable[[Path], str]] = {
    "parent": lambda f: "../outside.bin",
    "parent inside": lambda f: "deep/../../outside.bin",
    "absolute": lambda f: str(f.parent / "outside.bin"),
    "backslash": lambda f: "..\\outside.bin",
    "drive": lambda f: "C:outside.bin",
    "nothing": lambda f: "",
    "nul": lambda f: "w.bin\0.txt",
    "the folder": lambda f: ".",
    "a folder": lambda f: "deep",
    "symbolic link": link,
    "hard link": hard_link,
    "linked folder": linked_folder,
    "pipe": pipe,
    "device": lambda f: "/dev/zero",
    "missing": lambda f: "missing.bin",
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_no_way_out_of_the_folder(way: str, folder: Path) -> None:
    location = WAYS_OUT[way](folder)
    path = external(folder, "w.bin", length=16)
    made = onnx.load(path, load_external_data=False)
    made.graph.initializer[0].external_data[0].value = location
    path.write_bytes(made.SerializeToString())
    with pytest.raises(OnnxImportError, match=r"external data|data lie") as caught:
        load(path)
    assert "tensor 'w'" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("offset", "8"),
        ("offset", "-4"),
        ("offset", "9" * 30),
        ("length", "12"),
        ("length", "x"),
        ("length", str(1 << 62)),
    ],
)
def test_offsets_and_lengths_are_checked(key: str, value: str, folder: Path) -> None:
    path = external(folder, "w.bin", length=16)
    made = onnx.load(path, load_external_data=False)
    entries = made.graph.initializer[0].external_data
    kept = [(e.key, e.value) for e in entries if e.key != key] + [(key, value)]
    del entries[:]
    for k, v in kept:
        entries.add(key=k, value=v)
    path.write_bytes(made.SerializeToString())
    with pytest.raises(OnnxImportError, match="tensor 'w'"):
        load(path)


def test_external_and_inside(folder: Path) -> None:
    path = external(folder, "w.bin")
    made = onnx.load(path, load_external_data=False)
    made.graph.initializer[0].raw_data = b"\0" * 16
    path.write_bytes(made.SerializeToString())
    with pytest.raises(OnnxImportError, match="two payloads"):
        load(path)


def test_external_data_of_bytes(folder: Path) -> None:
    data = external(folder, "w.bin").read_bytes()
    with pytest.raises(OnnxImportError, match="not read from a folder"):
        load(data)


def test_two_gigabytes_are_not_written_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapeout.frontend.onnx.session.LIMIT_BYTES", 100)
    assert load(external(folder, "w.bin")).origin is None


def test_external_type() -> None:
    assert TensorProto.EXTERNAL == 1  # as `tensors.EXTERNAL` has it
