"""How programs run on this machine: compilation, memory, profiles and signals."""
