"""The answer: one sentence, how far to trust it, the row of figures, and what keeps the fleet from being smaller."""

import streamlit as st

from simulator.output.results import Badge, Latency, Metric, Plan, RunResult
from simulator.output.wording import CONSTRAINT_NAMES, METRIC_NAMES
from simulator.scenario import Scenario
from views import words
from views.cards import Card, draw_cards

MEANINGS: dict[Metric, str] = {
    "ttft_s": "Time to first token: from sending a request to its first token, queueing included.",
    "tpot_s": "Time per output token after the first, averaged over a request.",
    "e2e_s": "From sending a request to its last token.",
}
BADGES: dict[Badge, tuple[str, str, str]] = {
    "calibrated": ("green", ":material/verified:", "A model fitted to measurements of this model on this hardware."),
    "transferred": ("orange", ":material/swap_horiz:", "A model fitted on something else, scaled to this."),
    "analytic": ("gray", ":material/calculate:", "Arithmetic on datasheet figures; nothing was measured."),
}


def draw(plan: Plan, is_final: bool = True) -> None:
    """The top of the page; `is_final` is False while the interval does not count everything yet."""
    st.markdown(f"### {sentence(plan)}")
    _draw_trust(plan, is_final)
    draw_cards(cards(plan), "figures", columns=4)
    _draw_binding(plan)


def sentence(plan: Plan) -> str:
    """What is needed, for what, in Markdown."""
    scenario = plan.scenario
    fleet = f"You need **{words.plain(plan.scope.replace(' x ', ' × '))}**"
    load = f"{words.rate(plan.chosen.offered_rate_per_s)} requests/s of {scenario.model}"
    asked = f" with {targets(scenario)}" if scenario.slo.targets_s else ""
    return f"{fleet} on {words.plain(f'{scenario.hardware.accelerator} for {load}{asked}.')}"


def targets(scenario: Scenario) -> str:
    """`p99 TTFT ≤ 500 ms and p99 TPOT ≤ 50 ms`."""
    point = words.ordinal(scenario.slo.percentile)
    asked = scenario.slo.targets_s
    return " and ".join(f"{point} {METRIC_NAMES[name]} ≤ {words.seconds(limit)}" for name, limit in asked.items())


def _draw_trust(plan: Plan, is_final: bool) -> None:
    color, icon, meaning = BADGES[plan.chosen.badge]
    sure = span(plan) if is_final else "How sure that is, is being simulated"
    st.markdown(f":{color}-badge[{icon} {plan.chosen.badge}] **{words.plain(sure)}.** {meaning}")
    st.caption(words.plain(basis(plan)))


def span(plan: Plan) -> str:
    """The interval on the number of replicas."""
    low, high = plan.interval.low, plan.interval.high
    if high is None:
        return f"{low} or more replicas; even {plan.scenario.fleet.max_replicas} may not be enough"
    both = f"{words.count(low, 'replica')} at both ends of the interval"
    return both if low == high else f"Between {low} and {high} replicas"


def basis(plan: Plan) -> str:
    """What the interval counts and what the figures rest on."""
    run = plan.chosen
    counted = f"The interval counts {plan.interval.includes}."
    return f"{counted} {run.num_requests:,} simulated requests in steady state, {run.warmup_requests:,} of warm-up cut."


def cards(plan: Plan) -> list[Card]:
    """The row of figures, each with its scope and unit."""
    run = plan.chosen
    fleet = f"{words.count(plan.replicas, 'replica')} × TP{plan.gpus_per_replica}"
    shown = [Card("GPUs, fleet", f"{plan.gpus:,}", fleet)]
    shown += _cost_cards(plan)
    shown += [_latency_card(run.latencies[name], run) for name in metrics_shown(plan.scenario)]
    shown.append(_attainment_card(run))
    busy = run.occupancy
    shown.append(
        Card(
            "Time busy, replica",
            words.percent(busy.busy),
            f"KV cache {words.percent(busy.kv_mean)} full, {busy.mean_running:.0f} requests at once",
            help="Share of the time with a forward pass under way; it follows from the load. It comes near 100 % long "
            "before a fleet is full, as passes grow with the requests in them: the charts show where it is full.",
        )
    )
    return shown


def metrics_shown(scenario: Scenario) -> list[Metric]:
    """TTFT and TPOT always, E2E where it has a target."""
    return [name for name in METRIC_NAMES if name != "e2e_s" or scenario.slo.e2e_ms is not None]


def _cost_cards(plan: Plan) -> list[Card]:
    cost = plan.cost
    if cost is None:
        unknown = f"no price of {plan.scenario.hardware.accelerator} is known"
        return [Card("Cost", "unknown", unknown, help="Put a price into the sidebar.")]
    per_gpu = f"at {words.dollars(cost.per_gpu_hour.typical)} per GPU and hour"
    return [
        Card("$ per hour, fleet", words.dollars(cost.per_hour.typical), per_gpu, help=cost.source),
        Card(
            "$ per month, fleet",
            words.dollars(cost.per_month.typical),
            words.dollar_range(cost.per_month) or "730 hours",
            help="730 hours, whether the fleet is busy or not; the range is from the low to the high price.",
        ),
        Card(
            "$ / M output tokens",
            words.dollars(cost.per_million_output_tokens.typical),
            words.dollar_range(cost.per_million_output_tokens) or "at the offered load",
            help="All the fleet costs, over the output tokens at the offered load; the range is from the low to the "
            f"high price. Counting prompt tokens too: {words.dollars(cost.per_million_tokens.typical)}.",
        ),
    ]


def _latency_card(latency: Latency, run: RunResult) -> Card:
    point, limit_s = words.ordinal(run.percentile), run.targets_s.get(latency.metric)
    met = latency.metric not in run.missed
    target = "no target" if limit_s is None else f"target {words.seconds(limit_s)}{'' if met else ' missed'}"
    return Card(
        f"{point} {METRIC_NAMES[latency.metric]}, fleet",
        words.seconds(latency.at_target.value),
        f"{target}, 95 % interval {words.interval(latency.at_target)}",
        help=f"{MEANINGS[latency.metric]} Half of the requests: {words.seconds(latency.p50.value)}.",
        alarm=not met,
    )


def _attainment_card(run: RunResult) -> Card:
    if run.attainment is None:
        return Card("Attainment", "no target", "put one into the sidebar")
    wanted = f"{run.percentile:g} % wanted for each target"
    return Card(
        "Attainment, fleet",
        words.percent(run.attainment.value),
        wanted,
        help="Share of the requests that keep every target at once.",
        alarm=bool(run.missed),
    )


def _draw_binding(plan: Plan) -> None:
    told = f"{_sentence(plan.binding.evidence)} {_sentence(plan.why_not_fewer)}"
    when = "What limits it" if plan.replicas > 1 else "What would limit it first"
    title = f"{when}: {CONSTRAINT_NAMES[plan.binding.constraint]}"
    st.info(words.plain(told), title=words.plain(title), icon=":material/compress:")


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!')) or not text else '.'}"
