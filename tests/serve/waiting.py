"""Waits for something that happens in another thread, process or browser."""

import time


def wait_until(condition, seconds=60):
    """Waits until a condition holds, and fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not hold within {seconds} seconds"
        time.sleep(0.02)
