"""The graph IR: what to compute. It knows the kinds of operations but no operation."""
