"""A profiler trace of some steps of a run."""

from pathlib import Path

import jax
from jaxtyping import Array

__all__ = ["Profiler"]


class Profiler:
    """Traces some steps from the second call on, since the first call includes compilation.

    `folder` then holds a trace for TensorBoard's profiler, and `perfetto_trace.json.gz` for ui.perfetto.dev.

    **Arguments:**

    - `folder`: folder of the trace; created when the trace starts.
    - `steps`: minimum number of steps to trace; 0 for no trace. Each call is traced as a whole, so the trace may
      contain more steps.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self._folder, self._steps_left = folder, steps
        self._calls, self._is_tracing = 0, False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def before_call(self) -> None:
        """Starts the trace before the second call."""
        if self._calls == 1 and self._steps_left > 0:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._is_tracing = True

    def after_call(self, result: Array, steps: int) -> None:
        """Ends the trace once it holds enough steps.

        **Arguments:**

        - `result`: an array that the call computes; the trace ends once it is computed.
        - `steps`: number of steps in the call.
        """
        self._calls += 1
        if self._is_tracing:
            self._steps_left -= steps
            if self._steps_left <= 0:
                jax.block_until_ready(result)
                self._stop()

    def _stop(self) -> None:
        if self._is_tracing:
            self._is_tracing = False
            jax.profiler.stop_trace()
