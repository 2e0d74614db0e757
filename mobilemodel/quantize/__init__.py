"""Float tensors -> encodings: codebooks, affine steps, halves; and the schemes and plans that choose among them."""
