"""Kernels, in three levels: T what to compute, S how (with the numerics record), L loops; and programs of launches."""
