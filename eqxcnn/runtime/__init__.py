"""How programs run: compilation, devices, processes, memory, profiles and signals."""
