"""Loads object code and runs it; never compiles."""
