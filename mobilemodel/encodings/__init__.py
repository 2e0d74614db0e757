"""Tensor encodings: payloads <-> numpy arrays (spec/tensors.md §3 to §6). One file is one encoding."""
