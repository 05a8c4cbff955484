"""Slow, independent interpreters: what every stage is compared with."""
