"""Fast implementations, for CPUs, of operations in the plain layers."""
