# Stubs for the part of llvmlite 0.50 that tapeout calls.
__version__: str
