"""Blocks that several families share, made of the plain layers."""
