"""Plots: numbers in, a matplotlib figure out."""
