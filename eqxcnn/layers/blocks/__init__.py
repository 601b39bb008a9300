"""Blocks of plain layers that several model families share."""
