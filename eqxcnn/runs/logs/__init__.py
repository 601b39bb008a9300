"""Where a run's metrics go besides its own `metrics.jsonl`."""

from .backends import Logs, check_logs, open_logs

__all__ = ["Logs", "check_logs", "open_logs"]
