"""The operations: one class each. Composite -> sym -> primitive; primitives name `Sym` for type checking only."""
