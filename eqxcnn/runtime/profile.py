"""Profiling of some training steps with `jax.profiler`."""

from pathlib import Path

import jax
from jaxtyping import Array


class Profiler:
    """A context manager that traces training steps from the second call on; the first call includes compilation.

    `folder` then holds a trace for Perfetto (`perfetto_trace.json.gz`, at ui.perfetto.dev) and for TensorBoard's
    profiler.

    **Arguments:**

    - `folder`: where to write the trace; created if needed.
    - `steps`: the least number of steps to trace; calls are traced as a whole. 0 turns tracing off.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self._folder, self._remaining_steps = folder, steps
        self._calls, self._is_tracing = 0, False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def before_call(self) -> None:
        """Starts the trace before the second call."""
        if self._calls == 1 and self._remaining_steps > 0:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._is_tracing = True

    def after_call(self, value: Array, steps: int) -> None:
        """Ends the trace once enough steps have run; waits for `value`, a result of the call of `steps` steps."""
        self._calls += 1
        if self._is_tracing:
            self._remaining_steps -= steps
            if self._remaining_steps <= 0:
                jax.block_until_ready(value)
                self._stop()

    def _stop(self) -> None:
        if self._is_tracing:
            self._is_tracing = False
            jax.profiler.stop_trace()
