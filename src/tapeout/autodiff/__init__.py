"""Derives backward graphs by the chain rule."""
