"""Losses, schedules, update rules and averages of weights: plain arguments in, optax objects out."""
