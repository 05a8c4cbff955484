"""PyTorch modules, exported by both of its exporters, imported and differentiated, against autograd."""
