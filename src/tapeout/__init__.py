"""tapeout: a compiler for training. ONNX or Python in, the whole training step as native code out."""
