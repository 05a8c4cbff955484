"""Formulas of training, Sym to Sym: losses, optimisers, clipping, and the step that joins them."""
