"""A run's final counters as OpenMetrics text under vLLM's names, so that dashboards made for vLLM read a simulation.

Each replica is an `engine`. Gauges hold the last step's values; histograms have vLLM's buckets. (OpenMetrics 1.0: a
counter's samples end in `_total`, the text ends in `# EOF`.)
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from engine.core import metrics
from engine.core.metrics import FloatArray
from engine.core.trace import Trace

TTFT_BUCKETS_S = (
    .001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)  # fmt: skip
ITL_BUCKETS_S = (.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)  # fmt: skip
REQUEST_BUCKETS_S = (
    .3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)  # fmt: skip
TOKEN_BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


def text(trace: Trace) -> str:
    """The exposition; metric families stand together, as the format asks, replicas within them."""
    steps, requests = _by_replica(trace.steps), _by_replica(trace.requests)
    model = trace.meta.get("model")
    name = model.get("name") if isinstance(model, dict) else model
    families = _Families(str(name or "unknown"))
    for replica in sorted({*steps, *requests}):
        _add_steps(families, replica, steps.get(replica, pd.DataFrame()))
        _add_requests(families, replica, requests.get(replica, pd.DataFrame()))
    return "".join(families.lines()) + "# EOF\n"


def _add_steps(families: "_Families", engine: int, steps: pd.DataFrame) -> None:
    if steps.empty:
        return
    last = steps.iloc[-1]
    families.gauge("num_requests_running", engine, float(last["num_running"]))
    families.gauge("num_requests_waiting", engine, float(last["num_waiting"]))
    families.gauge("kv_cache_usage_perc", engine, float(last["kv_blocks_used"] / last["kv_blocks_total"]))
    tokens = (steps["prefill_tokens"] + steps["decode_tokens"]).to_numpy(dtype=float)
    families.histogram("iteration_tokens_total", engine, tokens, TOKEN_BUCKETS)


def _add_requests(families: "_Families", engine: int, requests: pd.DataFrame) -> None:
    if requests.empty:
        return
    done = requests[metrics.completed(requests)]
    totals = {
        "prompt_tokens": done["prompt_tokens"].sum(), "generation_tokens": done["output_tokens"].sum(),
        "prefix_cache_queries": done["prompt_tokens"].sum(),
        "prefix_cache_hits": done["cached_tokens"].sum() if "cached_tokens" in done else 0,
        "num_preemptions": requests["num_preemptions"].sum() if "num_preemptions" in requests else 0,
    }  # fmt: skip
    for name, value in totals.items():
        families.counter(name, engine, float(value))
    for reason, count in requests["finish_reason"].astype(str).value_counts(sort=False).items():
        families.counter("request_success", engine, float(count), finished_reason=str(reason))
    sent_s, first_s = metrics.sent_s(done), done["first_token_s"].to_numpy(dtype=float)
    scheduled_s, end_s = (done[name].to_numpy(dtype=float) for name in ("first_scheduled_s", "finish_s"))
    families.histogram("time_to_first_token_seconds", engine, metrics.ttft_s(done), TTFT_BUCKETS_S)
    families.histogram("inter_token_latency_seconds", engine, metrics.itl_s(done), ITL_BUCKETS_S)
    families.histogram("time_per_output_token_seconds", engine, metrics.itl_s(done), ITL_BUCKETS_S)
    families.histogram("e2e_request_latency_seconds", engine, metrics.e2e_s(done), REQUEST_BUCKETS_S)
    families.histogram("request_queue_time_seconds", engine, scheduled_s - sent_s, REQUEST_BUCKETS_S)
    families.histogram("request_prefill_time_seconds", engine, first_s - scheduled_s, REQUEST_BUCKETS_S)
    families.histogram("request_decode_time_seconds", engine, end_s - first_s, REQUEST_BUCKETS_S)


class _Families:
    """Samples by metric family, in the order in which families first appear."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._samples: dict[tuple[str, str], list[str]] = {}

    def gauge(self, name: str, engine: int, value: float) -> None:
        """One sample of a gauge."""
        self._add("gauge", name, "", engine, value)

    def counter(self, name: str, engine: int, value: float, **labels: str) -> None:
        """One sample of a counter."""
        self._add("counter", name, "_total", engine, value, **labels)

    def histogram(self, name: str, engine: int, values: FloatArray, bounds: tuple[float, ...]) -> None:
        """The buckets, which count all values up to their bound, the sum and the count."""
        known = np.sort(values[~np.isnan(values)])
        below = np.searchsorted(known, np.array(bounds, dtype=float), side="right")
        for bound, count in zip((*bounds, None), (*below.tolist(), len(known)), strict=True):
            self._add("histogram", name, "_bucket", engine, count, le="+Inf" if bound is None else f"{float(bound)}")
        self._add("histogram", name, "_count", engine, len(known))
        self._add("histogram", name, "_sum", engine, float(known.sum()))

    def lines(self) -> Iterator[str]:
        """The text, family by family."""
        for (kind, name), samples in self._samples.items():
            yield f"# TYPE vllm:{name} {kind}\n"
            yield from samples

    def _add(self, kind: str, name: str, suffix: str, engine: int, value: float, **labels: str) -> None:
        named: dict[str, Any] = {"model_name": self._model, "engine": str(engine), **labels}
        told = ",".join(f'{key}="{_escaped(str(label))}"' for key, label in named.items())
        number = f"{value:.10g}"
        self._samples.setdefault((kind, name), []).append(f"vllm:{name}{suffix}{{{told}}} {number}\n")


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _by_replica(table: pd.DataFrame) -> dict[int, pd.DataFrame]:
    if table.empty:
        return {}
    if "replica" not in table:
        return {0: table}
    return {int(str(replica)): own for replica, own in table.groupby("replica")}
