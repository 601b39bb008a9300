"""The zoo's networks as competent users of other libraries write them, for benchmarks to compare with."""
