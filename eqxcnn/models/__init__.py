"""Architectures, a family a file. A file's `variants` table is what `eqxcnn.zoo` shows of it."""
