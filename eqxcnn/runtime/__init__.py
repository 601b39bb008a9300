"""How programs run on this machine: compilation, memory, traces, signals."""
