"""`roofline show ACCELERATOR`: what it can do at best, how it stands in a node, and what an hour of it costs."""

from dataclasses import asdict
from datetime import date
from typing import Any

from roofline import console
from roofline.errors import InputError
from roofline.hardware import HardwareSpec, accelerator
from roofline.nodes import Node, node_of
from roofline.prices import OwnedHardware, Price, known_price, owned
from roofline.screen.tables import pairs


def named_accelerator(name: str) -> HardwareSpec | None:
    """The accelerator of that name, None where there is none."""
    try:
        return accelerator(name)
    except InputError:
        return None


def show_accelerator(spec: HardwareSpec, as_json: bool) -> None:
    """Print the catalogue's rows of an accelerator."""
    node, price, own = node_of(spec.name), known_price(spec.name), _owned(spec.name)
    if as_json:
        rows: dict[str, Any] = {"accelerator": asdict(spec), "node": asdict(node)}
        rows |= {"price": asdict(price) if price else None, "owned": asdict(own) if own else None}
        console.print_json(rows | {"owned_usd_per_hour": own.usd_per_hour if own else None})
        return
    console.out.print(pairs(spec.name, {**_peaks(spec), **_place(node), **_costs(price, own)}))
    warning = price.age_warning(date.today()) if price else None
    if warning:
        console.err.print(console.escape(warning))


def _owned(name: str) -> OwnedHardware | None:
    """None where the power or the purchase price is not known."""
    try:
        return owned(name).hardware()
    except InputError:
        return None


def _peaks(spec: HardwareSpec) -> dict[str, str]:
    rates = ", ".join(f"{dtype} {rate / 1e12:,.0f}" for dtype, rate in spec.dense_flops_per_s.items())
    lines = {
        "memory": f"{spec.memory_bytes / 1e9:,.0f} GB at {spec.memory_bytes_per_s / 1e12:.3g} TB/s",
        "dense TFLOP/s": rates,
        "ridge, bf16": f"{spec.ridge_flop_per_byte():,.0f} FLOP a byte: below it, memory binds",
        "link": f"{spec.link}: {spec.link_bytes_per_s / 1e9:,.0f} GB/s a direction",
    }
    lines |= {"power": f"{spec.tdp_w:,.0f} W"} if spec.tdp_w is not None else {}
    return lines | {"source": f"{spec.source} ({spec.date})"} | ({"note": spec.note} if spec.note else {})


def _place(node: Node) -> dict[str, str]:
    power = "" if node.power_w is None else f", {node.power_w / 1e3:,.1f} kW in all"
    return {
        "node": f"{node.name}: {node.accelerators}, {node.link_domain} of them in a link domain{power}",
        "beside the link": f"host {node.host_bytes_per_s / 1e9:,.0f} GB/s, network "
        f"{node.network_bytes_per_s / 1e9:,.3g} GB/s, each for one accelerator and direction",
    }


def _costs(price: Price | None, own: OwnedHardware | None) -> dict[str, str]:
    lines = {"rented": "no price is known"}
    if price:
        span = f" ({price.low:.2f} to {price.high:.2f})" if price.high > price.low else ""
        lines["rented"] = f"${price.typical:.2f}{span} an hour, {price.source} ({price.date})"
    if own:
        lines["owned"] = (
            f"${own.usd_per_hour:.2f} an hour before upkeep: ${own.capital_usd:,.0f} over {own.years:g} years, "
            f"{own.kw_all_in:g} kW at the meter at ${own.usd_per_kwh:g}/kWh; an estimate, state your own"
        )
    return lines
