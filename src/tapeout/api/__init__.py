"""What users call: load, compile, train, check."""
