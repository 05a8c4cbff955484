"""`NAME:KEY=VALUE,…` on the command line to a call of the function of that name."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, TypeVar

from tapeout.support.errors import OptionError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tapeout.ir.graph import Graph
    from tapeout.training.losses import Loss
    from tapeout.training.optimizers import Optimizer

T = TypeVar("T")

_WORDS = {"true": True, "false": False, "none": None}


def parse_loss(text: str, graph: Graph, labels: str | None) -> Loss:
    """Return a loss from its name, with options after a colon, or from the name of a scalar output.

    Args:
        text: As in `cross_entropy`, `mse:output=y`, `my_loss_output`.
        graph: The model, for the names of its outputs.
        labels: Name of the input with labels or targets; None: the loss's default.

    Raises:
        OptionError: Unknown name or option; the hint names the nearest.
    """
    from tapeout.training import losses

    name, options = split(text)
    if name not in losses.BY_NAME:
        if text in graph.output:
            return losses.Output(text)
        known = [*losses.BY_NAME, *graph.output]
        raise OptionError(
            f"no loss and no output of the model is called {name!r}",
            where="--loss",
            hint=nearest(name, known),
        )
    make = losses.BY_NAME[name]
    if labels is not None:
        key = "labels" if "labels" in inspect.signature(make).parameters else "target"
        options.setdefault(key, labels)
    return _call(make, options, "--loss")


def parse_optimizer(text: str, lr: float | None) -> Optimizer:
    """Return an optimiser from its name with options after a colon, as in `sgd:momentum=0.9,nesterov=true`.

    Raises:
        OptionError: Unknown name or option, or a learning rate is missing.
    """
    from tapeout.training import optimizers

    name, options = split(text)
    if name not in optimizers.BY_NAME:
        raise OptionError(
            f"no optimizer is called {name!r}",
            where="--optimizer",
            hint=nearest(name, optimizers.BY_NAME),
        )
    make = optimizers.BY_NAME[name]
    if lr is not None:
        options["lr"] = lr
    if (
        "lr" not in options
        and inspect.signature(make).parameters["lr"].default is inspect.Parameter.empty
    ):
        raise OptionError(
            f"{name} has no default learning rate",
            where="--optimizer",
            hint="pass --lr, such as --lr 0.01",
        )
    return _call(make, options, "--optimizer")


def parse_dims(pairs: tuple[str, ...]) -> dict[str, int]:
    """Return `N=64` pairs as numbers by name.

    Raises:
        OptionError: Not a name and a whole number of at least 1.
    """
    found: dict[str, int] = {}
    for pair in (p for text in pairs for p in text.split(",")):
        name, equals, value = pair.partition("=")
        if not equals or not value.strip().isdigit() or int(value) < 1:
            raise OptionError(
                f"{pair!r}: a name and a whole number are expected, as in N=64", where="--dims"
            )
        found[name.strip()] = int(value)
    return found


def parse_modes(texts: tuple[str, ...]) -> str | dict[str, str]:
    """Return `MODE` and `GLOB=MODE` texts as `load_onnx` takes modes: the last that fits decides.

    Raises:
        OptionError: A mode is unknown, or a glob is empty.
    """
    from tapeout.ir.modes import Modes

    found: dict[str, str] = {}
    for text in texts:
        glob, equals, mode = text.rpartition("=")
        glob = glob.strip() if equals else "*"
        if not glob:
            raise OptionError(f"{text!r}: MODE or GLOB=MODE is expected", where="--mode")
        found.pop(glob, None)
        found[glob] = mode.strip()
    Modes().over(found, "--mode")
    return found or "train"


def parse_precisions(texts: tuple[str, ...]) -> dict[str, str] | None:
    """Return `PRECISION` and `GLOB=PRECISION` texts as `Trainer` takes a precision; None for none.

    Raises:
        OptionError: A precision is unknown, or a glob is empty.
    """
    from tapeout.ir.precision import Precision

    found: dict[str, str] = {}
    for text in texts:
        glob, equals, name = text.rpartition("=")
        glob = glob.strip() if equals else "*"
        if not glob:
            raise OptionError(
                f"{text!r}: PRECISION or GLOB=PRECISION is expected", where="--precision"
            )
        found.pop(glob, None)
        found[glob] = name.strip()
    Precision.of(found, "--precision")
    return found or None


def split(text: str) -> tuple[str, dict[str, object]]:
    """Return the name and the options of `NAME:KEY=VALUE,…`."""
    name, _, rest = text.partition(":")
    options: dict[str, object] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise OptionError(
                f"{part!r} in {text!r}: KEY=VALUE is expected, as in sgd:momentum=0.9"
            )
        options[key.strip()] = _value(value.strip())
    return name.strip(), options


def _value(text: str) -> object:
    """Return a number, a word, several numbers with slashes between, or the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        if "/" in text:
            return tuple(float(part) for part in text.split("/"))
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        return text


def _call(make: Callable[..., T], options: Mapping[str, object], where: str) -> T:
    known = inspect.signature(make).parameters
    for key in options:
        if key not in known:
            raise OptionError(
                f"{make.__name__} has no option {key!r}", where=where, hint=nearest(key, known)
            )
    try:
        return make(**options)
    except (TypeError, ValueError) as e:
        raise OptionError(f"{make.__name__}: {e}", where=where) from None
