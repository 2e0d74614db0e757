"""Layers fitted to data: second moments of their inputs, refits, one layer after the other through ONNX Runtime."""
