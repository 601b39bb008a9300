"""Architectures, one family per file. `eqxcnn.zoo` lists the models in each file's `variants` table."""
