"""Times the training step of one engine in a process of its own; `tapeout bench` starts it.

    python peer.py JOB.json

It needs numpy and the engine, nothing else of this package, so that any interpreter can run it. JOB names the engine and holds
what all engines share: the step as ONNX, arrays by input name, first values of parameters, loss, optimiser and threads. Prints one
line of JSON; an engine that is not installed ends with code 3.
"""

import contextlib
import importlib
import importlib.util
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

MISSING = 3
"""Exit code where the engine is not installed."""

WARM = 11
_FEWEST = 5

Job = Mapping[str, Any]
Step = Callable[[], float]


def main() -> int:
    """Measure and print."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    family = job["engine"].partition("-")[0]
    package = {"torch": "torch", "jax": "jax", "onnxruntime": "onnxruntime", "tapeout": "tapeout"}
    try:
        module = importlib.import_module(package[family])
    except ImportError as error:
        print(error, file=sys.stderr)
        return MISSING
    before, start = _peak(), time.perf_counter()
    step, facts = _ENGINES[family](job, module)
    losses: dict[str, float] = {}
    for i in range(WARM):
        loss = step()
        if i in (0, 1, WARM - 1):
            losses[str(i)] = loss
        if i > 1 and time.perf_counter() - start > job["patience"]:
            break
    ready = time.perf_counter() - start
    times = _timed(step, job["seconds"])
    found = {
        "median": statistics.median(times),
        "least": min(times),
        "p90": sorted(times)[int(0.9 * (len(times) - 1))],
        "steps": len(times),
        "ready": ready,
        "peak_bytes": _peak(),
        "peak_over_import_bytes": _peak() - before,
        "losses": losses,
        "version": str(getattr(module, "__version__", "?")),
        **facts(),
    }
    print(json.dumps(found))
    return 0


def _peak() -> int:
    """Return the most bytes that this process has held."""
    # Linux also adds to ru_maxrss what the process held before it became this program.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _timed(step: Step, seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < _FEWEST or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def _arrays(path: str) -> dict[str, Any]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _nothing() -> dict[str, Any]:
    return {}


# --- engines --------------------------------------------------------------------------------------


def _tapeout(job: Job, module: Any) -> tuple[Step, Callable[[], dict[str, Any]]]:
    """One `Trainer.step` a step, on the model itself."""
    subject = importlib.import_module("tapeout.cli.subject")
    asked = {k: tuple(v) if isinstance(v, list) else v for k, v in job["asked"].items()}
    trainer = subject.subject(subject.Asked(**asked)).runs
    batch = _arrays(job["batch"])

    def facts() -> dict[str, Any]:
        return {
            "compile": trainer.compile_seconds,
            "kernels": trainer.kernels,
            "memory": vars(trainer.memory),
        }

    return (lambda: float(trainer.step(batch)["loss"])), facts


def _onnxruntime(job: Job, module: Any) -> tuple[Step, Callable[[], dict[str, Any]]]:
    """The step as `tapeout export-step` writes it; what a step makes of a parameter or state is fed back without a copy."""
    options = module.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job["threads"], 1
    options.log_severity_level = 3
    session = module.InferenceSession(job["step"], options, providers=["CPUExecutionProvider"])
    outputs = [o.name for o in session.get_outputs()]
    changed = {o: o.removesuffix(".next") for o in outputs if o.endswith(".next")}
    wanted = ["loss", *changed]
    feeds = {n: module.OrtValue.ortvalue_from_numpy(a) for n, a in _arrays(job["batch"]).items()}

    def step() -> float:
        found = session.run_with_ort_values(wanted, feeds)
        feeds.update((changed[o], v) for o, v in zip(wanted[1:], found[1:], strict=True))
        return float(found[0].numpy())

    return step, _nothing


def _function(place: str) -> Callable[..., Any]:
    """Return the function of `FILE.py:NAME`."""
    path, _, name = place.rpartition(":")
    spec = importlib.util.spec_from_file_location("peer_model", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(path).resolve().parent))
    spec.loader.exec_module(module)
    found: Callable[..., Any] = getattr(module, name)
    return found


def _torch(job: Job, torch: Any) -> tuple[Step, Callable[[], dict[str, Any]]]:
    """The user's module, with the first values of the file's parameters and a fused optimiser."""
    torch.set_num_threads(job["threads"])
    net = _function(job["torch_model"])().train()
    _take_parameters(net, job, torch)
    given = _arrays(job["batch"])
    inputs = [torch.from_numpy(given[n]) for n in job["inputs"]]
    if job["engine"] == "torch-cl":
        net = net.to(memory_format=torch.channels_last)
        inputs = [
            x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs
        ]
    labels = {n: torch.from_numpy(given[n]) for n in job["labels"]}
    kind, settings = job["optimizer"]
    make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = make(trained, fused=True, **settings)

    narrow = "bf16" in " ".join(job["asked"]["precisions"])

    def loss_of() -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            return _torch_loss(torch, job, net(*inputs), labels)

    run = torch.compile(loss_of) if job["engine"] == "torch-compile" else loss_of

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = run()
        loss.backward()
        if job["clip_norm"] is not None:
            torch.nn.utils.clip_grad_norm_(trained, job["clip_norm"])
        optimizer.step()
        return float(loss.item())

    return step, _nothing


def _take_parameters(net: Any, job: Job, torch: Any) -> None:
    """Give a module the parameters of the file, by name; at least one must fit, or losses say nothing."""
    values = _arrays(job["parameters"])
    own = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    known = {n: t for n, t in own.items() if n in values and tuple(t.shape) == values[n].shape}
    missing = [n for n, _ in net.named_parameters() if n not in known]
    if missing:
        print(f"the file has no parameter {missing[0]!r} of this shape", file=sys.stderr)
    with torch.no_grad():
        for name, tensor in known.items():
            tensor.copy_(torch.from_numpy(values[name]))


def _torch_loss(torch: Any, job: Job, scores: Any, labels: Mapping[str, Any]) -> Any:
    f, (kind, settings) = torch.nn.functional, job["loss"]
    (target,) = labels.values()
    if kind == "cross_entropy":
        classes = next(
            i for i in range(1, scores.ndim) if _without(scores.shape, i) == tuple(target.shape)
        )
        return f.cross_entropy(scores.movedim(classes, 1), target, **settings)
    named = {
        "mse": f.mse_loss,
        "l1": f.l1_loss,
        "bce_with_logits": f.binary_cross_entropy_with_logits,
    }
    return named[kind](scores, target, **settings)


def _without(shape: Any, axis: int) -> tuple[int, ...]:
    return tuple(int(n) for i, n in enumerate(shape) if i != axis)


def _jax(job: Job, jax: Any) -> tuple[Step, Callable[[], dict[str, Any]]]:
    """The user's function of (parameters by name, inputs), jitted with loss and optimiser as one step that owns its state."""
    jnp, optax = importlib.import_module("jax.numpy"), importlib.import_module("optax")
    model = _function(job["jax_model"])
    given = _arrays(job["batch"])
    inputs = [jnp.asarray(given[n]) for n in job["inputs"]]
    (target,) = [jnp.asarray(given[n]) for n in job["labels"]]
    parameters = {
        n: jnp.asarray(a) for n, a in _arrays(job["parameters"]).items() if n in job["trained"]
    }
    optimizer = _optax(optax, *job["optimizer"])
    if job["clip_norm"] is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(job["clip_norm"]), optimizer)
    state = optimizer.init(parameters)

    def loss_of(p: Any) -> Any:
        scores = model(p, *inputs)
        if job["loss"][0] == "cross_entropy":
            classes = next(
                i for i in range(1, scores.ndim) if _without(scores.shape, i) == tuple(target.shape)
            )
            moved = jnp.moveaxis(scores, classes, -1)
            return optax.softmax_cross_entropy_with_integer_labels(moved, target).mean()
        return jnp.square(scores - target).mean()

    def update(p: Any, s: Any) -> Any:
        loss, g = jax.value_and_grad(loss_of)(p)
        change, s = optimizer.update(g, s, p)
        return optax.apply_updates(p, change), s, loss

    run = jax.jit(update, donate_argnums=(0, 1))
    held = [parameters, state]

    def step() -> float:
        held[0], held[1], loss = run(*held)
        return float(jax.block_until_ready((loss, held[0]))[0])

    return step, _nothing


def _optax(optax: Any, kind: str, settings: dict[str, Any]) -> Any:
    if kind != "sgd":
        options = {"b1": settings["betas"][0], "b2": settings["betas"][1], "eps": settings["eps"]}
        if kind == "adamw":
            return optax.adamw(settings["lr"], weight_decay=settings["weight_decay"], **options)
        return optax.adam(settings["lr"], **options)
    made = optax.sgd(settings["lr"], settings["momentum"] or None, nesterov=settings["nesterov"])
    decay = settings["weight_decay"]
    return optax.chain(optax.add_decayed_weights(decay), made) if decay else made


_ENGINES: dict[str, Callable[[Job, Any], tuple[Step, Callable[[], dict[str, Any]]]]] = {
    "tapeout": _tapeout,
    "onnxruntime": _onnxruntime,
    "torch": _torch,
    "jax": _jax,
}

if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
