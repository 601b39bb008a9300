"""Fast implementations of the plain layers' operations for CPUs."""
