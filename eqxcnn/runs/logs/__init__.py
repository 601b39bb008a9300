"""Logs of a run's metrics besides `metrics.jsonl`."""

from .backends import Logs, check_logs, open_logs

__all__ = ["Logs", "check_logs", "open_logs"]
