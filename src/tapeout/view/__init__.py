"""Pictures of graphs, kernels and memory: SVG, DOT and one self-contained page."""
