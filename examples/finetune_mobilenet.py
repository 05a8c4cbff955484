"""Fine-tune a model that somebody else trained, exported and published: MobileNetV3 of PaddleOCR, on pictures of clothes.

    pip install --no-deps rapidocr-onnxruntime          # the model file comes with this package; its code is not run
    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb fashion   # or any IDX files
    python examples/finetune_mobilenet.py --data fashion/usr/share/datasets/fashion-mnist

The model tells upright lines of text from those that are upside down: 131,000 parameters, 35 batch normalisations in inference
form, weights in Constant nodes, opset 11. It gets a head of ten classes; 5,000 pictures train first the head alone, the rest
frozen, then everything. The whole test set judges both. What is written is the original file with other numbers in it.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

import tapeout

PACKAGE, FILE = "rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
HEAD = "fc_0.*"
# 28x28 grey to 3x32x32, from -1 to 1 as the model was trained.
TRANSFORM = "channels(pad(x, 2), 3)/127.5 - 1"


def installed_model() -> Path:
    """Return the path of the model in the installed package, which is not imported."""
    found = importlib.util.find_spec(PACKAGE)
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    raise SystemExit(
        f"{FILE} is not there: pip install --no-deps rapidocr-onnxruntime, or pass --model"
    )


def trained(
    model: tapeout.Graph, data: dict[str, np.ndarray], epochs: int, lr: float, seed: int
) -> tapeout.Trainer:
    """Return a trainer after some epochs, the learning rate falling to zero along a cosine."""
    trainer = tapeout.Trainer(
        model,
        loss=tapeout.losses.cross_entropy(),
        optimizer=tapeout.optimizers.adam(lr),
        seed=seed,
    )
    for epoch in range(epochs):
        trainer.hyperparameters["lr"] = lr * (1 + np.cos(np.pi * epoch / epochs)) / 2
        begun = time.perf_counter()
        loss = trainer.fit(data, batch_size=64)["loss"][-1]
        seconds = time.perf_counter() - begun
        print(f"    epoch {epoch + 1:2}  loss {loss:.4f}  {seconds:.1f} s", flush=True)
    return trainer


def one_seed(
    path: Path,
    train: dict[str, np.ndarray],
    test: dict[str, np.ndarray],
    epochs: tuple[int, int],
    seed: int,
    out: Path,
) -> tuple[float, float]:
    """Return the accuracies of the head alone and of everything trained; write the latter."""
    model = tapeout.surgery.replace_head(tapeout.load_onnx(path), 10, seed=seed)
    if not seed:
        print(*model.notes, sep="\n")
    # Frozen layers keep their statistics too: they infer. The features are small numbers, so the head's steps are large.
    frozen = model.freeze("*").unfreeze(HEAD).with_mode("eval")
    print(f"  seed {seed}: the head alone")
    head = trained(frozen, train, epochs[0], 0.5, seed)
    alone = head.evaluate(test, batch_size=250)["accuracy"]
    print(f"  seed {seed}: the head alone reaches {alone:.2%}; everything")
    # Unfrozen, the batch decides, and the statistics follow the new pictures. The head begins as it was drawn: what the first
    # run made of it, large numbers for features that infer, is a poor start for features that move.
    whole = trained(model, train, epochs[1], 2e-3, seed)
    reached = whole.evaluate(test, batch_size=250)["accuracy"]
    print(f"  seed {seed}: everything reaches {reached:.2%}")
    whole.export_onnx(out)
    check_written(path, out, whole, test)
    return alone, reached


def check_written(
    path: Path, out: Path, trainer: tapeout.Trainer, test: dict[str, np.ndarray]
) -> None:
    """Compare the written file with the original, and another runtime's numbers with ours."""
    old, new = onnx.load(path), onnx.load(out)
    onnx.checker.check_model(new)
    assert [(n.name, n.op_type, list(n.input), list(n.output)) for n in old.graph.node] == [
        (n.name, n.op_type, list(n.input), list(n.output)) for n in new.graph.node
    ]
    assert (old.ir_version, list(old.opset_import), list(old.metadata_props)) == (
        new.ir_version,
        list(new.opset_import),
        list(new.metadata_props),
    )
    assert (old.producer_name, old.graph.name, list(old.graph.input)) == (
        new.producer_name,
        new.graph.name,
        list(new.graph.input),
    )
    x = test["x"][:1000]
    # The file ends in a softmax; the scores in front of it are compared as well.
    scores = next(n.input[0] for n in new.graph.node if n.op_type == "Softmax")
    new.graph.output.append(onnx.helper.make_tensor_value_info(scores, 1, None))
    session = onnxruntime.InferenceSession(new.SerializeToString())
    theirs = dict(
        zip([o.name for o in session.get_outputs()], session.run(None, {"x": x}), strict=True)
    )
    ours = tapeout.compile(tapeout.surgery.truncate(tapeout.load_onnx(out, mode="eval"), scores))
    far = float(np.abs(ours(x=x)[scores] - theirs[scores]).max())
    name = trainer.model.outputs[0][0]
    near = float(np.abs(trainer.predict({"x": x})[name] - theirs[name]).max())
    print(
        f"  wrote {out}: names, opset and metadata as before; onnxruntime differs by {far:.1e} (scores), {near:.1e} (shares)"
    )
    assert far <= 1e-4


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, help="the .onnx file; default: that of the installed package"
    )
    parser.add_argument(
        "--data", default="/usr/share/datasets/fashion-mnist", help="folder of the IDX files"
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, nargs=2, default=(12, 10), metavar=("HEAD", "ALL"))
    parser.add_argument("--out", type=Path, default=Path("clothes.onnx"))
    args = parser.parse_args()
    path = args.model or installed_model()
    train = tapeout.load_data(
        f"{args.data}/train[:{args.images}]", transforms={"x": TRANSFORM}
    ).arrays
    test = tapeout.load_data(f"{args.data}/t10k", transforms={"x": TRANSFORM}).arrays
    for part in (train, test):
        part["labels"] = part["labels"].astype(np.int64)
    print(f"{path.name}: {len(train['x']):,} pictures to train, {len(test['x']):,} to test")
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    found = np.array(
        [one_seed(path, train, test, tuple(args.epochs), seed, args.out) for seed in seeds]
    )
    head, whole = found.mean(0)
    print(
        f"mean of {args.seeds}: head alone {head:.2%}, everything {whole:.2%}: {100 * (whole - head):+.2f} points"
    )
    assert whole - head >= 0.02


if __name__ == "__main__":
    main()
