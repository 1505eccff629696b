"""What ranks tell one another, and how long that takes: latency plus bytes over the link.

An all-reduce of small messages is one shot (every rank reads what all others hold), of large ones two (reduce-scatter,
then all-gather: a ring, or its two-shot form behind a switch). Between nodes only the part of one rank travels. Each
synchronisation has a latency. On H100 over NVLink this follows the measured times: see docs/method.md.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from roofline.errors import InputError
from roofline.hardware import Efficiency, HardwareSpec
from roofline.nodes import Node, PathName, node_of
from roofline.step_time import FloatArray

Number = TypeVar("Number", float, FloatArray)

# Synchronising over PCIe or a network takes so many times as long as over an accelerator's own link: estimates.
_LATENCY_FACTOR: dict[PathName, float] = {"link": 1.0, "host": 3.0, "network": 4.0}


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


@dataclass(frozen=True, slots=True)
class Group:
    """Ranks that communicate: `local` of them in each node over `link`, nodes over `network`."""

    ranks: int
    local: int
    link: Link
    network: Link | None = None

    @property
    def nodes(self) -> int:
        """Nodes over which the ranks are spread."""
        return -(-self.ranks // self.local)

    @property
    def outermost(self) -> Link:
        """The link between the ranks that are farthest apart."""
        return self.network or self.link


def group_of(hardware: HardwareSpec, efficiency: Efficiency, ranks: int, node: Node | None = None) -> Group:
    """So many accelerators, placed as close together as can be, and the links between them as far as usually reached.

    `node` defaults to the catalogue's for this accelerator; where there is none, all share one link. Raises
    `InputError` where the accelerator has no link, or its node no network that so many ranks would need.
    """
    if not hardware.link_bytes_per_s:
        raise InputError(f"accelerator {hardware.name!r} has no link, so a replica of several has no meaning.")
    machine = node or _usual_node(hardware)
    if machine is None:
        return Group(ranks, ranks, Link(hardware.link_bytes_per_s * efficiency.link, efficiency.collective_s))
    local = min(ranks, machine.accelerators)
    network = _link(machine, ranks, hardware, efficiency) if ranks > local else None
    return Group(ranks, local, _link(machine, local, hardware, efficiency), network)


def _usual_node(hardware: HardwareSpec) -> Node | None:
    try:
        return node_of(hardware.name)
    except InputError:
        return None


def _link(node: Node, ranks: int, hardware: HardwareSpec, efficiency: Efficiency) -> Link:
    rate = node.bytes_per_s(ranks, hardware) * efficiency.link
    return Link(rate, efficiency.collective_s * _LATENCY_FACTOR[node.path(ranks)])


def one_shot_all_reduce_s(size: Number, ranks: int, link: Link) -> Number:
    """Every rank fetches the `size` bytes of every other: one synchronisation, n - 1 times the bytes."""
    return link.latency_s + (ranks - 1) * size / link.bytes_per_s


def ring_all_reduce_s(size: Number, ranks: int, link: Link) -> Number:
    """Reduce-scatter and all-gather: two synchronisations, 2 (n - 1) / n times the bytes."""
    return 2 * link.latency_s + sent_by_all_reduce(size, ranks) / link.bytes_per_s


def all_reduce_s(size: Number, group: Group) -> Number:
    """The faster of the two, as engines choose by size; in each node and then between them; 0 for one rank."""
    if group.ranks == 1:
        return size * 0.0
    if group.network is None:
        return _smaller(
            one_shot_all_reduce_s(size, group.ranks, group.link), ring_all_reduce_s(size, group.ranks, group.link)
        )
    between = ring_all_reduce_s(size / group.local, group.nodes, group.network)
    return between if group.local == 1 else between + ring_all_reduce_s(size, group.local, group.link)


def all_to_all_s(size: Number, group: Group) -> Number:
    """Every rank sends `size` bytes, spread evenly over all ranks, itself among them; 0 for one rank.

    The bytes for other nodes and those for neighbours travel at the same time.
    """
    if group.ranks == 1:
        return size * 0.0
    near = group.link.latency_s + (group.local - 1) / group.ranks * size / group.link.bytes_per_s
    if group.network is None:
        return near
    far = group.network.latency_s + (group.ranks - group.local) / group.ranks * size / group.network.bytes_per_s
    return np.maximum(near, far) if isinstance(far, np.ndarray) else max(near, far)


def send_s(size: Number, link: Link) -> Number:
    """One rank sends `size` bytes to one other: from a pipeline stage to the next."""
    return link.latency_s + size / link.bytes_per_s


def sent_by_all_reduce(size: Number, ranks: int) -> Number:
    """Bytes that one rank sends at least, by ring: what the link is charged in a breakdown."""
    return 2 * (ranks - 1) / ranks * size


def _smaller(first: Number, second: Number) -> Number:
    return np.minimum(first, second) if isinstance(first, np.ndarray) else min(first, second)
