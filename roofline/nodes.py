"""How accelerators stand together: how many in a node, over which path they talk, what the node draws."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from roofline.catalogue_data import row_object, shipped_rows, user_rows
from roofline.errors import InputError
from roofline.hardware import HardwareSpec

PathName = Literal["link", "host", "network"]


@dataclass(frozen=True, slots=True)
class Node:
    """One machine (or one rack that is a single link domain) of equal accelerators; datasheet figures only."""

    name: str
    accelerator: str
    accelerators: int
    link_domain: int  # accelerators that reach one another over their own link; 1 where that is PCIe
    host_bytes_per_s: float  # of each accelerator and direction, to the host and to PCIe neighbours
    network_bytes_per_s: float  # of each accelerator and direction, to other nodes; 0 where there is no network
    power_w: float | None
    source: str
    date: str
    estimate: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse figures that mean nothing."""
        figures = {"accelerators": self.accelerators, "link_domain": self.link_domain}
        for name, count in figures.items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise InputError(f"node {self.name!r} has {name} = {count!r}; it must be a whole number from 1.")
        rates = {"host_bytes_per_s": self.host_bytes_per_s, "network_bytes_per_s": self.network_bytes_per_s}
        rates |= {} if self.power_w is None else {"power_w": self.power_w}
        for name, value in rates.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise InputError(f"node {self.name!r} has {name} = {value!r}; it must be a number, not negative.")
        if self.link_domain > self.accelerators:
            raise InputError(
                f"node {self.name!r} has a link domain of {self.link_domain} and {self.accelerators} accelerators; "
                "a domain that spans machines is one node of that many."
            )

    def path(self, group: int) -> PathName:
        """The slowest path that a group of so many accelerators, placed as close together as can be, has to use."""
        if group <= self.link_domain:
            return "link"
        return "host" if group <= self.accelerators else "network"

    def bytes_per_s(self, group: int, hardware: HardwareSpec) -> float:
        """Bytes per second that each of a group can send to the others, in each direction.

        Raises `InputError` where the group needs a path that the node does not have.
        """
        rates = {
            "link": hardware.link_bytes_per_s,
            "host": self.host_bytes_per_s,
            "network": self.network_bytes_per_s,
        }
        rate = rates[self.path(group)]
        if not rate:
            raise InputError(
                f"{group} accelerators of node {self.name!r} need its {self.path(group)}, and it has none; "
                f"use at most {self.accelerators} of them."
            )
        return rate

    def nodes_for(self, accelerators: int) -> int:
        """Nodes that so many accelerators fill, the last one in part."""
        return -(-accelerators // self.accelerators)


def node_of(accelerator: str, file: Path | None = None) -> Node:
    """The node that an accelerator usually stands in, by the accelerator's name or the node's; `file` comes first.

    Raises `InputError` with the names there are.
    """
    rows = [*(user_rows(file, "nodes") if file else ()), *shipped_rows("nodes")]
    for key in ("name", "accelerator"):
        for row in rows:
            if str(row.get(key)).lower() == accelerator.lower():
                return row_object(Node, row, "nodes")
    known = ", ".join(str(row.get("name")) for row in rows)
    raise InputError(f"no node is known by the name or accelerator {accelerator!r}; known are {known}.")
