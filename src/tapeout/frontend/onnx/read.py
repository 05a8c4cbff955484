"""From a file, bytes or a message in memory to a model that can be walked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tapeout.support.errors import DataError, OnnxImportError, OptionError
from tapeout.support.reading import read_file

if TYPE_CHECKING:
    import onnx

LIMIT_BYTES = (1 << 31) - 1
"""No protobuf message is longer."""

OLDEST_OPSET, NEWEST_OPSET = 7, 28
"""The versions of the operator set of ai.onnx that are understood."""

LIMIT_NODES = 1_000_000
"""The most nodes of a model, those of its functions counted at every call."""

# What people pass by mistake, by the first bytes.
_KNOWN = (
    (b"", "it is empty"),
    (
        b"PK\x03\x04",
        "it is a zip archive (a PyTorch checkpoint?); export it with torch.onnx.export",
    ),
    (b"\x89HDF", "it is an HDF5 file (a Keras model?); convert it with tf2onnx"),
    (b"version https://git-lfs", "it is a Git LFS pointer; fetch the file with `git lfs pull`"),
    (b"<", "it is a text or web page"),
    (b"{", "it is JSON text"),
    (b"\x80\x02", "it is a pickle"),
)


@dataclass(frozen=True)
class ModelFile:
    """A model as it was read.

    Attributes:
        proto: The message.
        name: The path as it is shown in errors.
        data: The bytes it was parsed from.
        folder: Where its external data must lie; None for a model that is no file.
    """

    proto: onnx.ModelProto
    name: str
    data: bytes
    folder: Path | None

    @property
    def short(self) -> str:
        """The file's own name, as it stands in the places of nodes."""
        return Path(self.name).name

    @property
    def opset(self) -> int:
        """The version of the operator set ai.onnx."""
        versions = {_domain(o.domain): o.version for o in self.proto.opset_import}
        return int(versions.get("", 0))


def read_model(model: str | Path | bytes | onnx.ModelProto) -> ModelFile:
    """Return the model of a path, of bytes, or of a message in memory.

    Raises:
        OnnxImportError: It is no ONNX model, it is cut short, or its version is not understood.
    """
    if isinstance(model, str | Path):
        path = Path(model)
        try:
            data = read_file(path, LIMIT_BYTES)
        except DataError as error:
            raise OnnxImportError(error.message, where=str(path)) from error
        return _checked(ModelFile(_parse(data, str(path)), str(path), data, path.parent))
    if isinstance(model, bytes | bytearray | memoryview):
        data = bytes(model)
        return _checked(ModelFile(_parse(data, "<bytes>"), "<bytes>", data, None))
    if hasattr(model, "SerializeToString") and hasattr(model, "opset_import"):
        return _checked(ModelFile(model, "<model>", _serialized(model), None))
    raise OptionError(
        f"a model is a path, bytes or an onnx.ModelProto, got {type(model).__name__}",
        where="load_onnx",
    )


def _serialized(model: onnx.ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except Exception as error:
        raise OnnxImportError(f"the message cannot be serialised: {error}") from error


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    import onnx

    for start, what in _KNOWN:
        if data.startswith(start) if start else not data:
            raise OnnxImportError(f"not an ONNX file: {what}", where=name)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:  # DecodeError of a package without types
        # A model starts with its IR version, a small number in field 1.
        if data[:1] == b"\x08" and data[1:2] < b"\x40":
            text = f"the file is cut short or damaged ({len(data)} bytes are there)"
            raise OnnxImportError(text, where=name) from error
        raise OnnxImportError("not an ONNX file", where=name) from error
    return proto


def _checked(file: ModelFile) -> ModelFile:
    proto = file.proto
    if not proto.HasField("graph"):
        raise OnnxImportError("not an ONNX model, or cut short: it holds no graph", where=file.name)
    versions: dict[str, int] = {}
    for opset in proto.opset_import:
        domain = _domain(opset.domain)
        if versions.setdefault(domain, opset.version) != opset.version:
            raise OnnxImportError(f"imports two versions of domain {domain!r}", where=file.name)
    if not versions:
        text = "no version of the operator set is stated; the file may be cut short"
        raise OnnxImportError(text, where=file.name)
    if "" in versions and not OLDEST_OPSET <= versions[""] <= NEWEST_OPSET:
        text = f"opset {versions['']}: {OLDEST_OPSET} to {NEWEST_OPSET} are understood"
        hint = "onnx.version_converter.convert_version changes the version"
        raise OnnxImportError(text, where=file.name, hint=hint)
    nodes = len(proto.graph.node)
    if nodes > LIMIT_NODES:
        text = f"the graph has {nodes} nodes, the limit is {LIMIT_NODES}"
        raise OnnxImportError(text, where=file.name)
    return file


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name
