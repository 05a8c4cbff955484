"""What turns a model into a graph: ONNX files, and graphs written in Python."""
