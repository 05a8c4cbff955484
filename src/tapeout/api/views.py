"""Mappings over the variables of a trainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tapeout.api.batches import fit_array
from tapeout.driver.step import HYPER
from tapeout.support.errors import OptionError, nearest

if TYPE_CHECKING:
    from tapeout.api.session import Session
    from tapeout.ir.graph import Graph
    from tapeout.ir.op import Array
    from tapeout.ir.type import TensorType


class Variables(MutableMapping[str, Any]):
    """Variables by name: a copy on read, shape and dtype checked on assignment."""

    kind: ClassVar[str]

    def __init__(self, session: Session, model: Graph) -> None:
        """Show the variables of a model that are of the kind."""
        self._session = session
        self._known = {v.name: v for v in model.variables if v.kind == self.kind}

    def __getitem__(self, name: str) -> Array:
        return self._session.read(self._check(name))

    def __setitem__(self, name: str, value: Any) -> None:
        self._session.write(name, fit_array(name, value, self._known[self._check(name)].type))

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"a {self.kind} cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def type(self, name: str) -> TensorType:
        """Return element type and shape of a variable."""
        return self._known[self._check(name)].type

    def update_all(self, arrays: Mapping[str, Any]) -> None:
        """Assign many at once; nothing is assigned unless all fit."""
        fitted = {n: fit_array(n, a, self._known[self._check(n)].type) for n, a in arrays.items()}
        for name, array in fitted.items():
            self._session.write(name, array)

    def _check(self, name: str) -> str:
        if name not in self._known:
            raise OptionError(f"no {self.kind} is called {name!r}", hint=nearest(name, self._known))
        return name


class Parameters(Variables):
    """The parameters of the model."""

    kind = "parameter"


class State(Variables):
    """The states of the model, such as running statistics; those of the optimiser are not among them."""

    kind = "state"


class Hyperparameters(MutableMapping[str, float]):
    """Run-time scalars such as the learning rate; an assignment acts from the next step on."""

    def __init__(self, session: Session) -> None:
        """Show the hyper-parameters of a session."""
        self._session = session
        self._known = {
            n.removeprefix(HYPER): n for n, v in session.variables.items() if v.kind == "hyper"
        }

    def __getitem__(self, name: str) -> float:
        return float(self._session.read(self._check(name)))

    def __setitem__(self, name: str, value: float) -> None:
        full = self._check(name)
        if not np.isfinite(value):
            raise OptionError(f"{name} is {value}, it must be a finite number")
        self._session.write(full, np.asarray(value, self._session.variables[full].type.dtype.numpy))

    def __delitem__(self, name: str) -> None:
        raise TypeError("hyper-parameters cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def _check(self, name: str) -> str:
        if name not in self._known:
            raise OptionError(
                f"no hyper-parameter is called {name!r}", hint=nearest(name, self._known)
            )
        return self._known[name]
