"""Rounding of channel counts."""

__all__ = ["round_channels"]


def round_channels(channels: float | int, divisor: int = 8) -> int:
    """Rounds `channels` to the nearest multiple of `divisor`, at least `divisor` and at least 0.9 times `channels`.

    This is `_make_divisible` of the MobileNets' published code (Sandler et al. 2018). The published parameter counts of
    these networks depend on this rounding.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor
