"""Bad input: exit code 2, one message that names the file, node, tensor or line, and nothing left behind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tapeout.cli.main import main

MODELS = Path(__file__).resolve().parents[2] / "models"
LENET = MODELS / "lenet.onnx"
MLP = MODELS / "matrix" / "tiny_mlp_dynamo_opset20.onnx"

Place = Path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The user's folder: a small model and data that fit it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlp.onnx").write_bytes(MLP.read_bytes())
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 8)).astype(np.float32)
    np.savez(tmp_path / "good.npz", x=x, labels=np.arange(12) % 3)
    return tmp_path


def train(*more: str, model: str = "mlp.onnx", data: str = "good.npz") -> list[str]:
    return ["train", model, "--data", data, "--epochs", "1", "--batch-size", "4", *more]


def refused(place: Place, capsys: pytest.CaptureFixture[str], args: list[str], *words: str) -> str:
    """Run, and check what every refusal has in common; return the message."""
    before = {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}
    code = main(args)
    captured = capsys.readouterr()
    message = captured.err
    assert code == 2, captured
    assert message.count("tapeout: error:") == 1, message
    assert message.startswith("tapeout: error: "), message
    assert "Traceback" not in message
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"
    after = {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}
    assert after == before
    return message


def save(
    path: Path, nodes: list[onnx.NodeProto], initializers: dict[str, np.ndarray] | None = None
) -> None:
    """A model of these nodes from x f32[N,8] to y."""
    made = [onnx.numpy_helper.from_array(a, n) for n, a in (initializers or {}).items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        made,
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path
    )


# --- the model -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["train", "check", "view", "eval", "gradcheck", "export-step", "predict", "bisect"]
)
def test_no_such_model(place: Place, capsys: pytest.CaptureFixture[str], command: str) -> None:
    more = {
        "train": ["--data", "good.npz"],
        "eval": ["--data", "good.npz"],
        "predict": ["--data", "good.npz", "-o", "out.npz"],
        "export-step": ["-o", "step.onnx"],
    }
    refused(
        place, capsys, [command, "mpl.onnx", *more.get(command, [])], "mpl.onnx", "no such file"
    )


def test_the_nearest_model_is_named(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    refused(place, capsys, train(model="mpl.onnx"), "did you mean 'mlp.onnx'?")


@pytest.mark.parametrize("command", ["train", "check", "view"])
@pytest.mark.parametrize("content", [b"", b"not a model at all\n", b"\x00" * 300, b"PK\x03\x04zip"])
def test_not_an_onnx_file(
    place: Place, capsys: pytest.CaptureFixture[str], command: str, content: bytes
) -> None:
    (place / "bad.onnx").write_bytes(content)
    args = train(model="bad.onnx") if command == "train" else [command, "bad.onnx"]
    refused(place, capsys, args, "bad.onnx")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_file(place: Place, capsys: pytest.CaptureFixture[str], share: float) -> None:
    whole = MLP.read_bytes()
    (place / "cut.onnx").write_bytes(whole[: int(len(whole) * share)])
    refused(place, capsys, train(model="cut.onnx"), "cut.onnx")


def test_unsupported_operators_all_at_once(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["a"], name="first_bad"),
        helper.make_node("MaxRoiPool", ["a"], ["b"], name="second_bad"),
        helper.make_node("Relu", ["b"], ["y"], name="good"),
    ]
    save(place / "ops.onnx", nodes)
    refused(
        place,
        capsys,
        train(model="ops.onnx"),
        "ops.onnx",
        "Det",
        "MaxRoiPool",
        "first_bad",
        "second_bad",
    )


def test_external_data_outside_the_folder(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "secret.bin").write_bytes(np.zeros((8, 3), np.float32).tobytes())
    inner = place / "inner"
    inner.mkdir()
    save(
        inner / "m.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"w": np.ones((8, 3), np.float32)},
    )
    model = onnx.load(inner / "m.onnx")
    (w,) = model.graph.initializer
    w.ClearField("raw_data")
    w.data_location = TensorProto.EXTERNAL
    w.external_data.add(key="location", value="../secret.bin")
    (inner / "m.onnx").write_bytes(model.SerializeToString())
    refused(place, capsys, train(model="inner/m.onnx"), "w", "secret.bin")


# --- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--loss", "cross_entrpy"], ["cross_entrpy", "did you mean 'cross_entropy'?"]),
        (["--loss", "cross_entropy:output=probz"], ["probz", "'logits'"]),
        (
            ["--loss", "cross_entropy:label_smothing=0.1"],
            ["label_smothing", "did you mean 'label_smoothing'"],
        ),
        (["--loss", "cross_entropy:label_smoothing"], ["KEY=VALUE"]),
        (["--optimizer", "adm"], ["adm", "did you mean 'adam'"]),
        (["--optimizer", "sgd"], ["learning rate", "--lr"]),
        (
            ["--optimizer", "sgd:momentm=0.9", "--lr", "0.1"],
            ["momentm", "did you mean 'momentum'?"],
        ),
        (["--lr", "-1"], ["lr", "-1"]),
        (["--trainable", "fc9.*"], ["fc9.*"]),
        (["--input", "x=imag"], ["imag"]),
        (["--transform", "x=__import__('os')"], ["transform of 'x'"]),
        (["--val-split", "1.5"], ["1.5"]),
        (["--val", "good.npz", "--val-split", "0.1"], ["--val-split"]),
        (["--clip-norm", "0"], ["clip_norm"]),
    ],
    ids=lambda v: "-".join(v)[:40],
)
def test_unknown_names_and_options(
    place: Place, capsys: pytest.CaptureFixture[str], more: list[str], words: list[str]
) -> None:
    refused(place, capsys, train(*more), *words)


@pytest.mark.parametrize(
    "args",
    [
        ["trian"],
        ["train"],
        ["train", "mlp.onnx"],
        train("--epochs", "0"),
        train("--nonsense"),
        ["view"],
    ],
    ids=str,
)
def test_usage_errors_show_the_usage(
    place: Place, capsys: pytest.CaptureFixture[str], args: list[str]
) -> None:
    message = refused(place, capsys, args)
    assert "usage: tapeout" in message


# --- data ------------------------------------------------------------------------------------------


def _label_out_of_range(place: Place) -> None:
    with np.load(place / "good.npz") as f:
        np.savez(place / "bad.npz", x=f["x"], labels=f["labels"] + 1)


def _nan(place: Place) -> None:
    with np.load(place / "good.npz") as f:
        x = f["x"]
        x[7, 3] = np.nan
        np.savez(place / "bad.npz", x=x, labels=f["labels"])


def _wrong_shape(place: Place) -> None:
    np.savez(place / "bad.npz", x=np.zeros((12, 9), np.float32), labels=np.zeros(12, np.int64))


def _wrong_dtype(place: Place) -> None:
    np.savez(place / "bad.npz", x=np.array([["a"] * 8] * 12), labels=np.zeros(12, np.int64))


def _empty(place: Place) -> None:
    np.savez(place / "bad.npz", x=np.zeros((0, 8), np.float32), labels=np.zeros(0, np.int64))


def _cut(place: Place) -> None:
    (place / "bad.npz").write_bytes((place / "good.npz").read_bytes()[:300])


def _no_labels(place: Place) -> None:
    np.savez(place / "bad.npz", x=np.zeros((12, 8), np.float32))


def _lengths(place: Place) -> None:
    np.savez(place / "bad.npz", x=np.zeros((12, 8), np.float32), labels=np.zeros(11, np.int64))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_label_out_of_range, ["labels"]),
        (_nan, ["bad.npz", "x", "[7, 3]", "nan"]),
        (_wrong_shape, ["x", "f32[12,9]", "8"]),
        (_wrong_dtype, ["bad.npz", "x"]),
        (_empty, ["bad.npz", "empty"]),
        (_cut, ["bad.npz"]),
        (_no_labels, ["labels"]),
        (_lengths, ["bad.npz", "12", "11"]),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_bad_data(
    place: Place,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Place], None],
    words: list[str],
) -> None:
    make(place)
    refused(place, capsys, train(data="bad.npz"), *words)


def test_no_such_data(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    refused(place, capsys, train(data="god.npz"), "god.npz", "did you mean 'good.npz'?")


# --- outputs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["-o", "nowhere/t.onnx"], ["nowhere/t.onnx", "there is no folder"]),
        (["-o", "sub"], ["sub", ".onnx"]),
        (["-o", "t.pt"], ["t.pt", ".onnx"]),
        (["-o", "mlp.onnx"], ["mlp.onnx", "input"]),
        (["-o", "t.onnx", "--plot", "t.png"], ["t.png", ".svg"]),
        (["-o", "/proc/t.onnx"], ["/proc/t.onnx", "cannot write"]),
    ],
    ids=lambda v: "-".join(v)[:40],
)
def test_unwritable_output(
    place: Place, capsys: pytest.CaptureFixture[str], more: list[str], words: list[str]
) -> None:
    refused(place, capsys, train(*more), *words)


def test_output_is_checked_before_anything_is_read(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(place, capsys, train("-o", "nowhere/t.onnx", model="none.onnx"), "nowhere")
    assert "none.onnx" not in message


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["view", "mlp.onnx", "-o", "v.png"], ["v.png", ".html"]),
        (["view", "mlp.onnx", "--stage", "memory", "-o", "v.dot"], ["memory", ".dot"]),
        (["predict", "mlp.onnx", "--data", "good.npz", "-o", "o.txt"], ["o.txt", ".npz"]),
        (["predict", "mlp.onnx", "--data", "good.npz", "-o", "good.npz"], ["good.npz", "input"]),
        (["opt", "mlp.onnx", "-p", "cze"], ["cze", "'cse'"]),
        (["export-step", "mlp.onnx", "-o", "s.onnx", "--dims", "N=x"], ["N=64"]),
        (["demo", "-o", "mlp.onnx"], ["mlp.onnx", "folder"]),
        (["train", "mlp.onnx", "--data", "good.npz", "--resume", "none.ckpt"], ["none.ckpt"]),
        (["train", "mlp.onnx", "--data", "good.npz", "--resume", "good.npz"], ["good.npz"]),
        (["cache", "burn"], ["burn"]),
    ],
    ids=lambda v: "-".join(v)[:50],
)
def test_other_commands(
    place: Place, capsys: pytest.CaptureFixture[str], args: list[str], words: list[str]
) -> None:
    refused(place, capsys, args, *words)
