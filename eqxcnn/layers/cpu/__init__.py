"""Fast CPU implementations of the operations in `eqxcnn.layers`."""
