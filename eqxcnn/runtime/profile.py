"""A trace of what the device does over some steps of a run."""

from pathlib import Path

import jax
from jaxtyping import Array


class Profiler:
    """While entered, traces some steps from the second call on, the first one being compiled.

    `folder` then holds what Perfetto (`perfetto_trace.json.gz`, at ui.perfetto.dev) and TensorBoard's profiler read.

    **Arguments:**

    - `folder`: made by the trace.
    - `steps`: how many at least, calls being traced as a whole; 0 for none.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self._folder, self._left = folder, steps
        self._calls, self._is_tracing = 0, False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def before_call(self) -> None:
        """Starts the trace when it is time."""
        if self._calls == 1 and self._left > 0:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._is_tracing = True

    def after_call(self, value: Array, steps: int) -> None:
        """Ends the trace after a call of so many steps when there were enough."""
        self._calls += 1
        if self._is_tracing:
            self._left -= steps
            if self._left <= 0:
                jax.block_until_ready(value)
                self._stop()

    def _stop(self) -> None:
        if self._is_tracing:
            self._is_tracing = False
            jax.profiler.stop_trace()
