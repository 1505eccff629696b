"""The smallest number for which something holds, if more never hurts: steps away from a guess, then bisection."""

from collections.abc import Callable


def smallest(holds: Callable[[int], bool], guess: int, limit: int) -> int | None:
    """The smallest n from 1 to `limit` with `holds(n)`; None if there is none. Asks about few n, none twice.

    The steps away from the guess grow as 1, 2, 4: a good guess is cheap, a bad one not dear. Unless the answer is 1,
    the number below it was asked about.
    """
    low, high = 0, limit + 1  # does not hold at low, holds at high; neither end has been asked about yet
    step, n = 1, min(max(guess, 1), limit)
    while high - low > 1:
        if holds(n):
            high = n
        else:
            low = n
        if low >= 1 and high <= limit:
            n = (low + high) // 2
        else:
            n = max(high - step, 1) if high <= limit else min(low + step, limit)
            step *= 2
    return high if high <= limit else None
