"""What ranks tell one another, and how long that takes: latency plus bytes over the link.

An all-reduce of small messages is one shot (every rank reads what all others hold), of large ones two (reduce-scatter,
then all-gather: a ring, or its two-shot form behind a switch). Each synchronisation of the ranks has a latency. On H100
over NVLink both together follow the measured times: see docs/method.md.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from roofline.errors import InputError
from roofline.hardware import Efficiency, HardwareSpec
from roofline.step_time import FloatArray

Number = TypeVar("Number", float, FloatArray)


@dataclass(frozen=True, slots=True)
class Link:
    """Between any two of the ranks: bytes per second that one rank sends, and latency of one synchronisation."""

    bytes_per_s: float
    latency_s: float

    def __post_init__(self) -> None:
        """Refuse a link that carries nothing."""
        if not 0 < self.bytes_per_s < float("inf") or not 0 <= self.latency_s < float("inf"):
            raise InputError(
                f"link of {self.bytes_per_s} bytes/s and {self.latency_s} s latency has no meaning; "
                "the first must be positive and the second not negative."
            )


def link_of(hardware: HardwareSpec, efficiency: Efficiency) -> Link:
    """The link of an accelerator to its peers, as far as it is usually reached."""
    if not hardware.link_bytes_per_s:
        raise InputError(f"accelerator {hardware.name!r} has no link, so a replica of several has no meaning.")
    return Link(hardware.link_bytes_per_s * efficiency.link, efficiency.collective_s)


def one_shot_all_reduce_s(size: Number, ranks: int, link: Link) -> Number:
    """Every rank fetches the `size` bytes of every other: one synchronisation, n - 1 times the bytes."""
    return link.latency_s + (ranks - 1) * size / link.bytes_per_s


def ring_all_reduce_s(size: Number, ranks: int, link: Link) -> Number:
    """Reduce-scatter and all-gather: two synchronisations, 2 (n - 1) / n times the bytes."""
    return 2 * link.latency_s + 2 * (ranks - 1) / ranks * size / link.bytes_per_s


def all_reduce_s(size: Number, ranks: int, link: Link) -> Number:
    """The faster of the two, as engines choose by size; 0 for one rank."""
    if ranks == 1:
        return size * 0.0
    one_shot, ring = one_shot_all_reduce_s(size, ranks, link), ring_all_reduce_s(size, ranks, link)
    return np.minimum(one_shot, ring) if isinstance(one_shot, np.ndarray) else min(one_shot, ring)


def all_to_all_s(size: Number, ranks: int, link: Link) -> Number:
    """Every rank sends `size` bytes, spread evenly over all ranks, itself among them; 0 for one rank."""
    if ranks == 1:
        return size * 0.0
    return link.latency_s + (ranks - 1) / ranks * size / link.bytes_per_s


def send_s(size: Number, link: Link) -> Number:
    """One rank sends `size` bytes to one other: from a pipeline stage to the next."""
    return link.latency_s + size / link.bytes_per_s


def sent_by_all_reduce(size: Number, ranks: int) -> Number:
    """Bytes that one rank sends at least, by ring: what the link is charged in a breakdown."""
    return 2 * (ranks - 1) / ranks * size
