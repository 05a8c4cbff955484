"""Contractions: register tiles, packed panels, splits of k."""
