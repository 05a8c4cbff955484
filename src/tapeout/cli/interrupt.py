"""What Ctrl-C means: while training, finish the running step; otherwise, stop at once."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType


class Interrupted(Exception):
    """The user stopped a command that had something to save; the message says what was saved and where."""


class StopRequest:
    """Remembers SIGINT within a `with` block.

    Before `armed` the signal stops at once, as usual: there is nothing to save. After it the first
    one only sets `asked`, which the training loop reads between steps; a second one stops at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self.armed = False
        self._before: Any = None

    def __enter__(self) -> Self:
        # Only the main thread may set handlers; elsewhere the embedding program decides.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.armed or self.asked:
            raise KeyboardInterrupt
        self.asked = True
