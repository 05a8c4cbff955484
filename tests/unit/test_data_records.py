"""The kept models and PyTorch's recorded results: whole, consistent, and made from the same bits."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reference.fixed_batches import BATCH, MODELS, fixed_batch
from benchmarks.reference.settings import OPTIMIZERS
from benchmarks.reference.summary import distance, summarise

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "tests" / "records"
MATRIX = ROOT / "models" / "matrix"
PARITY = sorted(path.stem for path in RECORDS.glob("parity_*.json"))

BATCH_DIGESTS = {
    "mlp": "79f24bb38b8c36be",
    "lenet": "79f24bb38b8c36be",
    "resnet": "5211d247b18a17da",
    "mobilenet": "5211d247b18a17da",
    "convnext": "5211d247b18a17da",
    "unet": "675223b610743459",
    "gpt": "3a0da7bc355599ae",
    "bert": "e3c2888d7f568706",
    "vit": "7bf1a1ef4bade239",
    "lstm": "c229821762367135",
}


@pytest.mark.parametrize("model", MODELS)
def test_fixed_batches_never_change(model: str) -> None:
    batch = fixed_batch(model, 3)
    assert all(len(a) == BATCH for a in batch.values())
    assert {a.dtype for a in batch.values()} <= {np.dtype("f4"), np.dtype("i8")}
    assert list(batch)[-1] == "labels"
    data = b"".join(a.tobytes() for a in batch.values())
    assert hashlib.sha256(data).hexdigest()[:16] == BATCH_DIGESTS[model]


def test_there_is_a_record_of_every_pair() -> None:
    pairs = sorted(f"parity_{m}_{o}" for m in MODELS for o in OPTIMIZERS[m])
    assert pairs == PARITY


@pytest.mark.parametrize("name", PARITY)
def test_parity_records_are_whole(name: str) -> None:
    record = json.loads((RECORDS / f"{name}.json").read_text())
    wide, narrow = np.array(record["float64"]["losses"]), np.array(record["float32"]["losses"])
    assert len(wide) == len(narrow) == record["steps"] == 20
    assert wide[-1] < wide[0]
    # Of a hundred thousand units with a corner, a few lie so near it that rounding decides: the runs part.
    parts = record["model"] in ("resnet", "mobilenet")
    np.testing.assert_allclose(narrow, wide, rtol=1e-2 if parts else 1e-5)
    for part in ("gradients", "final"):
        for tensor, summary in record["float64"][part].items():
            assert summary["max_abs"] == max(abs(v) for v in summary["values"])
            apart = max(record["float32"][f"{part}_distance"][tensor])
            assert apart < (1 if parts else 1e-4)


def test_a_summary_tells_tensors_apart() -> None:
    tensor = np.linspace(-1, 2, 600).reshape(20, 30)
    other = tensor.copy()
    other[7, 11] += 1e-6
    same, changed = summarise("w", tensor), summarise("w", other)
    assert same == summarise("w", tensor.copy())
    gaps = np.subtract(changed["projections"], same["projections"])
    np.testing.assert_allclose(np.abs(gaps), 1e-6, rtol=1e-6)
    assert distance(other, tensor) == pytest.approx(0.5e-6)


def test_mnist_record() -> None:
    record = json.loads((RECORDS / "mnist_torch.json").read_text())
    for setting in record["settings"].values():
        finals = {seed: run["accuracy"][-1] for seed, run in setting["runs"].items()}
        assert setting["mean_accuracy"] == pytest.approx(np.mean(list(finals.values())))
        assert min(finals.values()) >= 0.95
        assert all(run["untrained"] <= 0.2 for run in setting["runs"].values())
        assert all(len(run["losses"]) == setting["epochs"] for run in setting["runs"].values())


@pytest.mark.parametrize("path", sorted(MATRIX.glob("*.onnx")), ids=lambda p: p.stem)
def test_matrix_computes_what_pytorch_did(path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    want = np.load(MATRIX / f"{'_'.join(path.stem.split('_')[:2])}.npz")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (got,) = session.run(["logits"], {"x": want["x"].astype(np.float32)})
    np.testing.assert_allclose(got, want["logits"], rtol=1e-5, atol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("name", PARITY)
def test_pytorch_still_gives_what_is_recorded(name: str) -> None:
    from benchmarks.reference.settings import SAMPLES
    from benchmarks.reference.torch_reference import train_losses

    record = json.loads((RECORDS / f"{name}.json").read_text())
    run = train_losses(record["model"], record["optimizer"]["name"], "float64")
    np.testing.assert_allclose(run["losses"], record["float64"]["losses"], rtol=1e-9)
    for tensor, summary in record["float64"]["final"].items():
        got = summarise(tensor, run["final"][tensor], SAMPLES[record["model"]])
        gap = np.max(np.abs(np.subtract(got["values"], summary["values"])))
        assert gap <= 1e-7 * summary["max_abs"], tensor
