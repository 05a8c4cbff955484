"""Reading `.tape` text from left to right: words, names, numbers; every error names its line and column.

Newlines end statements, so they count; spaces and `// comments` do not. All patterns run in time linear in the text, numbers are
short and nesting is bounded, so that hostile text ends in an error soon.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tapeout.ir.literal import nan_of
from tapeout.support.errors import ParseError, TapeoutError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

_BLANK = re.compile(r"[ \t\r]*(?://[^\n]*)?")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*", re.ASCII)
_STRING = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"')
_INTEGER = re.compile(r"-?[0-9]{1,40}(?![0-9])", re.ASCII)
_FLOAT = re.compile(
    r"-?(?:[0-9]{1,400}(?:\.[0-9]{1,400}(?:[eE][+-]?[0-9]{1,4})?|[eE][+-]?[0-9]{1,4}))", re.ASCII
)
_SPECIAL = re.compile(r"(-?)(inf|nan)(?![A-Za-z0-9_.])(?:\(0x([0-9a-f]{1,16})\))?", re.ASCII)
DEEPEST = 100
"""How deep values, expressions and blocks may nest."""


class Scanner:
    """A place in a text."""

    def __init__(self, text: str, file: str = "") -> None:
        """Start at the beginning, after blank lines."""
        self.text, self.file = text, file
        self.pos = 0
        self._depth = 0
        self._blank()
        self.skip_lines()

    # -- errors -------------------------------------------------------------------------------------

    def where(self, pos: int) -> str:
        """Return `file, line 3, column 14`."""
        line = self.text.count("\n", 0, pos) + 1
        column = pos - self.text.rfind("\n", 0, pos)
        place = f"line {line}, column {column}"
        return f"{self.file}, {place}" if self.file else place

    def fail(self, message: str, pos: int | None = None, hint: str = "") -> NoReturn:
        """Raise a ParseError at a position (default: here), which shows the line."""
        at = self.pos if pos is None else pos
        start = self.text.rfind("\n", 0, at) + 1
        stop = self.text.find("\n", at)
        left = max(start, at - 60)
        shown = self.text[left : min(len(self.text) if stop < 0 else stop, at + 40)]
        marked = f"{message}\n  {shown}\n  {' ' * (at - left)}^"
        raise ParseError(marked, where=self.where(at), hint=hint)

    @contextmanager
    def blaming(self, pos: int) -> Iterator[None]:
        """Report what goes wrong inside as an error of the text at `pos`."""
        try:
            yield
        except ParseError:
            raise
        except TapeoutError as e:
            self.fail(e.message, pos, e.hint)
        except (
            ArithmeticError,
            AssertionError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
        ) as e:
            # Attributes of a hand-written text may have any type and size.
            self.fail(f"this does not make sense: {type(e).__name__}: {str(e)[:200]}", pos)

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """Count one level of nesting."""
        self._depth += 1
        if self._depth > DEEPEST:
            self.fail(f"nested more than {DEEPEST} levels deep")
        yield
        self._depth -= 1

    # -- tokens -------------------------------------------------------------------------------------

    def _blank(self) -> None:
        found = _BLANK.match(self.text, self.pos)
        assert found is not None
        self.pos = found.end()

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Return a match that starts here, after which the scanner then stands."""
        found = pattern.match(self.text, self.pos)
        if found is not None:
            self.pos = found.end()
            self._blank()
        return found

    def sees(self, sign: str) -> bool:
        """Whether a sign stands here."""
        return self.text.startswith(sign, self.pos)

    def take(self, sign: str) -> bool:
        """Pass over a sign if it stands here."""
        if not self.sees(sign):
            return False
        self.pos += len(sign)
        self._blank()
        return True

    def expect(self, sign: str) -> None:
        """Pass over a sign that must stand here."""
        if not self.take(sign):
            self.fail(f"{sign!r} is expected")

    def peek_word(self) -> str:
        """Return the word that stands here, empty if none does."""
        found = _WORD.match(self.text, self.pos)
        return found.group() if found else ""

    def take_word(self, word: str) -> bool:
        """Pass over a word if exactly it stands here."""
        if self.peek_word() != word:
            return False
        self.pos += len(word)
        self._blank()
        return True

    def expect_word(self, *words: str) -> str:
        """Return one of some words, which must stand here."""
        found = self.peek_word()
        if found not in words:
            self.fail(f"{' or '.join(repr(w) for w in words)} is expected")
        self.pos += len(found)
        self._blank()
        return found

    def word(self, what: str) -> str:
        """Return the word that stands here."""
        found = self.match(_WORD)
        if found is None:
            self.fail(f"{what} is expected")
        return found.group()

    def name(self, what: str) -> str:
        """Return a name: a word, or a JSON string."""
        return self.string(what) if self.sees('"') else self.word(what)

    def string(self, what: str) -> str:
        """Return a JSON string."""
        start = self.pos
        found = self.match(_STRING)
        if found is None:
            self.fail(f"{what} in double quotes is expected")
        try:
            text = json.loads(found.group())
        except ValueError:
            self.fail("this is no valid string", start)
        assert isinstance(text, str)
        return text

    def integer(self, what: str) -> int:
        """Return a whole number."""
        found = self.match(_INTEGER)
        if found is None:
            self.fail(f"{what} is expected, a whole number of at most 40 digits")
        return int(found.group())

    def number(self) -> int | float | bool | None:
        """Return a number or a bool if one stands here, else None."""
        word = self.peek_word()
        if word in ("true", "false"):
            self.take_word(word)
            return word == "true"
        special = self.match(_SPECIAL)
        if special is not None:
            return self._special(special)
        found = self.match(_FLOAT)
        if found is not None:
            return float(found.group())
        found = self.match(_INTEGER)
        return int(found.group()) if found is not None else None

    def _special(self, found: re.Match[str]) -> float:
        minus, word, bits = found.groups()
        if bits:
            value = nan_of(int(bits, 16))
            if word != "nan" or minus or not math.isnan(value):
                self.fail("these bits are no NaN", found.start())
            return value
        return float(minus + word)

    # -- lines --------------------------------------------------------------------------------------

    def end_line(self) -> None:
        """Pass over the end of a statement."""
        if self.pos < len(self.text) and self.text[self.pos] != "\n":
            self.fail("the end of the line is expected")
        self.skip_lines()

    def skip_lines(self) -> None:
        """Pass over ends of lines and empty lines."""
        while self.pos < len(self.text) and self.text[self.pos] == "\n":
            self.pos += 1
            self._blank()

    @property
    def finished(self) -> bool:
        """Whether nothing is left."""
        return self.pos >= len(self.text)

    def expect_end(self) -> None:
        """Raise unless nothing is left."""
        if not self.finished:
            self.fail("nothing more is expected after this")
