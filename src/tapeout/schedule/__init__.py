"""Turns a graph into a program: fusion, layouts, order, memory plan, loops."""
