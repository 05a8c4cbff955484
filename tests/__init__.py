"""The tests of tapeout. Helpers are imported by full name: `from tests.tolerances import close`."""
