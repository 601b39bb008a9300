"""Fast forms, on a CPU, of the operations that the plain layers do."""
