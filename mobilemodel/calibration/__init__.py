"""What data tell about a network: sensitivities, second moments, refits; streamed through ONNX Runtime."""
