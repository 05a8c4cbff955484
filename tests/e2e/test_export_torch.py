"""export_torch: what it writes is the module, by its own names, and trains; what cannot be written is told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tapeout
from tests.tolerances import close

needs_torch = pytest.mark.torch


def modules() -> Any:
    """Return the modules of these tests; PyTorch may be absent when this file is collected."""
    from tests.torch_matrix import exported_modules

    return exported_modules


def sample(*shape: int) -> Any:
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@needs_torch
def test_names_arrive(tmp_path: Path) -> None:
    module = modules().Tangled()
    made = tapeout.export_torch(module, sample(2, 4), tmp_path / "m.onnx")
    assert made.parameters == [n for n, _ in module.named_parameters() if n != "unused"]
    assert made.unused == ["unused"]
    assert made.frozen == ["fixed"]
    assert made.buffers == ["table", "bn.running_mean", "bn.running_var"]
    assert made.inputs == {"x_value": ("N", 4)}
    assert list(made.outputs) == ["logits", "more_0", "x_value"]
    text = str(made)
    for part in (
        "no output depends on: unused",
        "input x is called x_value",
        "b.weight is a.weight",
    ):
        assert part in text

    graph = tapeout.load_onnx(tmp_path / "m.onnx")
    trains = {n: v.trainable for n, v in graph.parameters.items()}
    still = {"table", "fixed"}
    assert trains == {n: n not in still for n in [*made.parameters, "table"]}
    assert trains["scale"], "a scalar of the module is a parameter"
    assert not tapeout.check(tmp_path / "m.onnx").warnings


@needs_torch
def test_gradients_are_the_modules(tmp_path: Path) -> None:
    module = modules().Tangled(dropout=0.0)
    tapeout.export_torch(module, sample(2, 4), tmp_path / "m.onnx")
    x = sample(5, 4)
    loss = (module.train()(x)["logits"] ** 2).mean()
    loss.backward()
    trainer = tapeout.Trainer(
        tmp_path / "m.onnx", loss=lambda y: (y["logits"] * y["logits"]).mean(), optimizer=None
    )
    got, gradients = trainer.gradients({"x_value": x.numpy()})
    close(np.float32(got), np.float32(loss.item()), "network")
    named = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    assert sorted(gradients) == sorted(named)
    for name, gradient in named.items():
        # A bias before a normalisation has none but rounding.
        if float(gradient.abs().max()) > 1e-4:
            close(gradients[name], gradient.numpy(), "network", factor=4, reason="f32 both sides")


@needs_torch
def test_modes_come_back_and_dropout_stays(tmp_path: Path) -> None:
    module = modules().Tangled().eval()
    module.bn.train()
    before = {n: m.training for n, m in module.named_modules()}
    state = {n: t.clone() for n, t in module.state_dict().items()}
    tapeout.export_torch(module, sample(2, 4), tmp_path / "m.onnx")
    assert {n: m.training for n, m in module.named_modules()} == before
    assert all(t.equal(state[n]) for n, t in module.state_dict().items())
    assert tapeout.load_onnx(tmp_path / "m.onnx", mode="train").notes is not None
    import onnx

    nodes = onnx.load(tmp_path / "m.onnx").graph.node
    assert "Dropout" in {n.op_type for n in nodes}
    assert not any("stack_trace" in p.key for n in nodes for p in n.metadata_props)


@needs_torch
def test_a_fixed_batch(tmp_path: Path) -> None:
    made = tapeout.export_torch(modules().Tangled(), sample(2, 4), tmp_path / "m.onnx", batch=None)
    assert made.inputs == {"x_value": (2, 4)}


@needs_torch
def test_names_of_ones_own(tmp_path: Path) -> None:
    made = tapeout.export_torch(
        modules().mlp(), (sample(3, 4),), tmp_path / "m.onnx", batch="rows",
        input_names=["pixels"], output_names=["scores"], opset=23,
    )  # fmt: skip
    assert (made.inputs, made.outputs) == ({"pixels": ("rows", 4)}, {"scores": ("rows", 2)})
    assert made.opset == 23
    assert tapeout.check(tmp_path / "m.onnx")


@needs_torch
def test_keyword_arguments(tmp_path: Path) -> None:
    made = tapeout.export_torch(
        modules().Keywords(),
        sample(2, 4),
        tmp_path / "m.onnx",
        kwargs={"mask": sample(2, 4), "double": True},
    )
    assert made.inputs == {"x": ("N", 4), "mask": ("N", 4)}
    assert list(made.outputs) == ["output"]


@needs_torch
@pytest.mark.parametrize(
    ("arguments", "error", "part"),
    [
        ({"args": "one row"}, tapeout.OptionError, "2 rows or more"),
        ({"args": "too many"}, tapeout.OptionError, "does not fit forward"),
        ({"opset": 17}, tapeout.OptionError, "18 to 26"),
        ({"batch": "a b"}, tapeout.OptionError, "identifier"),
        ({"output_names": ["a", "b"]}, tapeout.OptionError, "returns 1 tensors"),
        ({"module": 3}, tapeout.OptionError, "torch.nn.Module is expected"),
        ({"module": "random pool"}, tapeout.CompileError, "cannot export"),
        ({"module": "fixed size"}, tapeout.CompileError, "batch=None"),
        ({"module": "twice"}, tapeout.CompileError, "twice"),
        ({"path": "nowhere/m.onnx"}, tapeout.DataError, "cannot be written"),
    ],
)
def test_what_cannot_be_written(
    arguments: dict[str, Any], error: type[Exception], part: str, tmp_path: Path
) -> None:
    named = {"one row": sample(1, 4), "too many": (sample(2, 4), sample(2, 4))}
    given = {"module": modules().mlp(), "args": sample(2, 4), "path": "m.onnx", **arguments}
    given["args"] = named.get(arguments.get("args", ""), given["args"])
    if isinstance(given["module"], str):
        given["module"], given["args"] = modules().BAD[given["module"]]()
    given["path"] = tmp_path / given["path"]
    with pytest.raises(error, match=part):
        tapeout.export_torch(**given)


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(tapeout.OptionError, match=r"pip install 'tapeout\[torch\]'"):
        tapeout.export_torch(None, None, "m.onnx")
