"""Contractions without columns whose lanes run across all operands, such as depthwise convolutions."""
