"""How much the network's output hears of each channel of its layers: reverse-mode differentiation of ONNX graphs."""
