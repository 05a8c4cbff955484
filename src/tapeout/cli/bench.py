"""`tapeout bench`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tapeout.cli import options as o
from tapeout.cli.profile import subject_options
from tapeout.support.errors import OptionError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tapeout.cli.say import Speaker
    from tapeout.cli.subject import Asked

OURS = "tapeout"
ENGINES = ("torch", "torch-cl", "torch-compile", "jax", "onnxruntime")
AGREE = 1e-3
"""Largest relative difference of losses that counts as the same work."""

_INSTALL = {
    "torch": "pip install torch",
    "jax": "pip install jax optax",
    "onnxruntime": "pip install onnxruntime",
}
_PATIENCE = 60.0
_RUN = "import runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
"""Runs a file without its folder on the path: names there are those of commands."""


@click.command(name="bench")
@o.together(o.model, *subject_options)
@click.option(
    "--against",
    metavar="ENGINES",
    default="",
    help=f"Other engines with commas between: {', '.join(ENGINES)}. onnxruntime runs the step that export-step writes; torch and "
    "jax need the model in Python.",
)
@click.option(
    "--torch-model",
    metavar="FILE.py:F",
    help="F() returns the model as a torch.nn.Module; it is given the file's parameters by name.",
)
@click.option(
    "--jax-model",
    metavar="FILE.py:F",
    help="F(parameters, *inputs) returns the scores, parameters by their names in the file.",
)
@click.option(
    "--torch-python", metavar="PYTHON", help="Interpreter that has torch; default: this one."
)
@click.option("--jax-python", metavar="PYTHON", help="Interpreter that has jax and optax.")
@click.option("--ort-python", metavar="PYTHON", help="Interpreter that has onnxruntime.")
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="R",
    help="Processes per engine, in turn.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.01),
    default=2.0,
    show_default=True,
    metavar="S",
    help="Of timed steps in each process.",
)
@click.option("--history", metavar="FILE.jsonl", help="Append the result as one line of JSON.")
@o.as_json
def command(
    against: str,
    torch_model: str | None,
    jax_model: str | None,
    torch_python: str | None,
    jax_python: str | None,
    ort_python: str | None,
    repeats: int,
    seconds: float,
    history: str | None,
    as_json: bool,
    **asked: Any,  # noqa: ANN401 (checked by click)
) -> int:
    """Time the training step of a model, alone or side by side with other engines.

    Every engine runs in processes of its own, with the same first weights, batch and threads, in turn: A, B, A, B, … Their
    losses are compared, and a ratio counts only where they agree within 1e-3. Exit code 1: an engine was asked for and did
    other work.

    \b
    tapeout bench lenet.onnx --batch-size 64
    tapeout bench lenet.onnx --batch-size 64 --against onnxruntime --history bench.jsonl
    tapeout bench net.onnx --against torch,torch-compile --torch-model net.py:build --loss mse
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)
    from tapeout.cli.say import Speaker
    from tapeout.cli.subject import Asked

    pythons = {"torch": torch_python, "jax": jax_python, "onnxruntime": ort_python}
    bench = Bench(
        Asked(**asked),
        _engines(against, torch_model, jax_model),
        {k: v or sys.executable for k, v in pythons.items()},
        repeats,
        seconds,
        torch_model,
        jax_model,
    )
    speaker = Speaker(json=as_json)
    result = bench.run(speaker)
    _show(speaker, result)
    if history is not None:
        with Path(history).open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
    speaker.result(result)
    return 0 if all(e.get("agrees", True) for e in result["engines"]) else 1


def _engines(text: str, torch_model: str | None, jax_model: str | None) -> tuple[str, ...]:
    """Return the engines asked for.

    Raises:
        OptionError: One is unknown, or there is no model for it.
    """
    found = tuple(dict.fromkeys(e.strip() for e in text.split(",") if e.strip()))
    for engine in found:
        if engine not in ENGINES:
            raise OptionError(
                f"no engine is called {engine!r}", where="--against", hint=nearest(engine, ENGINES)
            )
        family = engine.partition("-")[0]
        if {"torch": torch_model, "jax": jax_model}.get(family, "") is None:
            raise OptionError(
                f"{engine} reads no ONNX file",
                where="--against",
                hint=f"--{family}-model FILE.py:FUNCTION names the model in Python",
            )
    return found


@dataclass
class Bench:
    """One comparison: who takes part, and how long."""

    asked: Asked
    engines: tuple[str, ...]
    pythons: Mapping[str, str]
    repeats: int
    seconds: float
    torch_model: str | None
    jax_model: str | None
    missing: dict[str, str] = field(default_factory=dict)

    def run(self, speaker: Speaker) -> dict[str, Any]:
        """Measure, and return the result as plain data."""
        with tempfile.TemporaryDirectory(prefix="tapeout-bench-") as folder:
            job = self._job(Path(folder))
            engines = (OURS, *self.engines)
            runs: dict[str, list[dict[str, Any]]] = {e: [] for e in engines}
            for n in range(self.repeats):
                for engine in engines:
                    if engine in self.missing:
                        continue
                    found = self._one(engine, job, Path(folder))
                    if found is not None:
                        runs[engine].append(found)
                    speaker.line("", f"{engine} {n + 1} of {self.repeats}: {_told(found)}")
        return _result(self.asked, job, runs, self.missing)

    def _job(self, folder: Path) -> dict[str, Any]:
        """Write what all engines share and return the description."""
        import tapeout
        from tapeout.cli.npz import npz_bytes
        from tapeout.cli.subject import subject

        made = subject(self.asked)
        trainer = made.runs
        assert isinstance(trainer, tapeout.Trainer)
        parameters = {n: trainer.parameters[n] for n in trainer.parameters}
        (folder / "batch.npz").write_bytes(npz_bytes(made.batch))
        (folder / "parameters.npz").write_bytes(npz_bytes(parameters))
        if "onnxruntime" in self.engines:
            tapeout.save_onnx(trainer.graph_for("step", made.batch), folder / "step.onnx")
        kind, settings = _optimizer(trainer.optimizer)
        return {
            "asked": asdict(self.asked),
            "batch": str(folder / "batch.npz"),
            "parameters": str(folder / "parameters.npz"),
            "step": str(folder / "step.onnx"),
            "inputs": trainer.input_names,
            "labels": trainer.label_names,
            "trained": [n for n, v in trainer.model.parameters.items() if v.trainable],
            "threads": trainer.threads,
            "loss": _loss(self.asked.loss_text),
            "optimizer": [kind, settings],
            "clip_norm": self.asked.clip_norm,
            "torch_model": self.torch_model,
            "jax_model": self.jax_model,
            "seconds": self.seconds,
            "patience": _PATIENCE,
            "rows": int(next(iter(made.batch.values())).shape[0]),
            "made_up": made.made_up,
        }

    def _one(self, engine: str, job: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
        """Run one engine in a process of its own; None if it cannot run, which `missing` explains."""
        from tapeout.cli import peer
        from tapeout.support import env

        family = engine.partition("-")[0]
        python = self.pythons.get(family, sys.executable)
        path = folder / f"{engine}.json"
        path.write_text(json.dumps({**job, "engine": engine}), encoding="utf-8")
        # The first process of ours compiles into an empty cache, the later ones load from it.
        around = env.of_child(int(job["threads"]), folder / "cache" if engine == OURS else None)
        try:
            done = subprocess.run(
                [python, "-c", _RUN, peer.__file__, str(path)], capture_output=True, text=True, check=False, env=around
            )  # fmt: skip
        except OSError as error:
            self.missing[engine] = f"{python}: {error.strerror}"
            return None
        if done.returncode == peer.MISSING:
            install = _INSTALL[family]
            self.missing[engine] = (
                f"not installed for {python}: {install}, or name another --{_option(family)}-python"
            )
            return None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
            if engine == OURS:
                raise OptionError(f"our own step failed: {lines[-1]}")
            self.missing[engine] = lines[-1][:300]
            return None
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return found


def _option(family: str) -> str:
    return "ort" if family == "onnxruntime" else family


def _optimizer(optimizer: Any) -> tuple[str, dict[str, Any]]:  # noqa: ANN401 (one of two records)
    from tapeout.training.optimizers import Sgd

    settings = asdict(optimizer)
    if isinstance(optimizer, Sgd):
        return "sgd", settings
    return ("adamw" if settings.pop("decoupled") else "adam"), settings


def _loss(text: str) -> tuple[str, dict[str, Any]]:
    """Return the loss as torch spells it: its name and the options that do not choose outputs or labels."""
    from tapeout.cli.spec import split

    name, settings = split(text)
    return name, {
        k: v for k, v in settings.items() if k not in ("output", "labels", "target", "axis")
    }


def _told(found: Mapping[str, Any] | None) -> str:
    from tapeout.support.units import seconds_text

    return "failed" if found is None else f"{seconds_text(found['median'])} a step"


def _result(
    asked: Asked,
    job: Mapping[str, Any],
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    missing: Mapping[str, str],
) -> dict[str, Any]:
    from tapeout.driver.ceiling import processor

    ours = runs[OURS]
    rows = [_row(e, found, ours, job) for e, found in runs.items() if found]
    rows += [{"engine": e, "missing": why} for e, why in missing.items()]
    first = ours[0]
    return {
        "model": asked.model,
        "machine": processor(),
        "threads": job["threads"],
        "repeats": len(ours),
        "batch": job["rows"],
        "made_up_data": job["made_up"],
        "compile_cold_seconds": first["compile"],
        "compile_cached_seconds": min((r["compile"] for r in ours[1:]), default=None),
        "kernels": first["kernels"],
        "memory": first["memory"],
        "engines": rows,
    }


def _row(
    engine: str,
    runs: Sequence[Mapping[str, Any]],
    ours: Sequence[Mapping[str, Any]],
    job: Mapping[str, Any],
) -> dict[str, Any]:
    median = statistics.median(r["median"] for r in runs)
    row = {
        "engine": engine,
        "version": runs[0]["version"],
        "median_seconds": median,
        "least_seconds": min(r["least"] for r in runs),
        "p90_seconds": statistics.median(r["p90"] for r in runs),
        "samples_per_second": job["rows"] / median,
        "steps": sum(r["steps"] for r in runs),
        "peak_over_import_bytes": max(r["peak_over_import_bytes"] for r in runs),
        "losses": runs[0]["losses"],
    }
    if engine != OURS:
        pairs = list(zip(runs, ours, strict=False))
        row["ratio"] = statistics.median(r["median"] / x["median"] for r, x in pairs)
        row["agrees"] = all(_agree(r["losses"], ours[0]["losses"]) for r in runs)
    return row


def _agree(theirs: Mapping[str, float], ours: Mapping[str, float]) -> bool:
    both = [(theirs[k], ours[k]) for k in theirs if k in ours]
    return all(abs(a - b) <= AGREE * max(1.0, abs(b)) for a, b in both)


def _show(speaker: Speaker, result: Mapping[str, Any]) -> None:
    from tapeout.support.units import bytes_text, seconds_text

    memory, cached = result["memory"], result["compile_cached_seconds"]
    speaker.line(
        "model",
        f"{result['model']}, batch {result['batch']}, {result['threads']} threads, {result['machine']}",
    )
    if result["made_up_data"]:
        speaker.line("batch", "made-up numbers; --data uses real ones")
    loaded = "" if cached is None else f", {seconds_text(cached)} from the cache"
    speaker.line(
        "compile",
        f"{seconds_text(result['compile_cold_seconds'])} cold{loaded}; {result['kernels']} kernels",
    )
    speaker.line(
        "memory",
        f"{bytes_text(memory['total'])}: parameters {bytes_text(memory['parameters'])}, optimizer state "
        f"{bytes_text(memory['optimizer_state'])}, gradients {bytes_text(memory['gradients'])}, activations "
        f"{bytes_text(memory['activations'])}",
    )
    for row in result["engines"]:
        speaker.line(f"{row['engine']} ", _line(row))


def _line(row: Mapping[str, Any]) -> str:
    from tapeout.support.units import bytes_text, seconds_text

    if "missing" in row:
        return str(row["missing"])
    text = (
        f"{seconds_text(row['median_seconds'])} a step (least {seconds_text(row['least_seconds'])}, 90 % within "
        f"{seconds_text(row['p90_seconds'])}), {row['samples_per_second']:,.0f} samples/s, "
        f"{bytes_text(row['peak_over_import_bytes'])} over its imports"
    )
    if "ratio" not in row:
        return text
    if row["agrees"]:
        return f"{text}; {row['ratio']:.2f} times our time"
    theirs = ", ".join(f"{x:.4f}" for x in row["losses"].values())
    return f"{text}; its losses ({theirs}) are not ours: it does other work"
