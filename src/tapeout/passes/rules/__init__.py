"""The tables of exact algebra that `passes.simplify` applies: pattern beside result, one family a file."""
