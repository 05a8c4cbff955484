"""What writes files for others to read: plain ONNX, and trained weights in the file they came from."""
