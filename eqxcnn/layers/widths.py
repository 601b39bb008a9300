"""Channel counts that hardware likes."""


def round_channels(channels: float | int, divisor: int = 8) -> int:
    """`channels` to the nearest multiple of `divisor`, at least one and never below nine tenths of `channels`.

    The rule of the MobileNets' published code (Sandler et al. 2018), which their parameter counts depend on.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor
