"""The command that would check a prediction on the real engine, at the predicted load."""

import shlex

from simulator.output.results import RunResult
from simulator.scenario import FixedLength, Length, LogNormalLength, Scenario, UniformLength


def benchmark_command(scenario: Scenario, result: RunResult) -> str:
    """`vllm bench serve`, or this project's own benchmark where its engine is what was measured (a CPU)."""
    own = scenario.step_time.profile is not None and scenario.engine.num_blocks is not None
    return _ours(scenario, result) if own else _vllm(scenario, result)


def _vllm(scenario: Scenario, result: RunResult) -> str:
    workload, slo = scenario.workload, scenario.slo
    words = [
        "vllm", "bench", "serve", "--model", scenario.model, "--request-rate", f"{result.offered_rate_per_s:g}",
        "--burstiness", f"{workload.burstiness:g}", "--num-prompts", str(result.num_requests + result.warmup_requests),
        "--dataset-name", "random", "--ignore-eos", "--seed", str(scenario.seed),
        "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", f"50,90,{slo.percentile:g}",
    ]  # fmt: skip
    for flag, length in (("input", workload.prompt_tokens), ("output", workload.output_tokens)):
        if length is not None:
            words += [f"--random-{flag}-len", str(round(mean_tokens(length)))]
    targets = {"ttft": slo.ttft_ms, "tpot": slo.tpot_ms, "e2el": slo.e2e_ms}
    given = [f"{name}:{target:g}" for name, target in targets.items() if target is not None]
    words += ["--goodput", *given] if given else []
    return shlex.join(words)


def _ours(scenario: Scenario, result: RunResult) -> str:
    """One replica under its share of the load: this benchmark runs one engine."""
    workload, engine = scenario.workload, scenario.engine
    requests = -(-(result.num_requests + result.warmup_requests) // result.replicas)
    words = [
        "engine", "bench", "serve", "--model", scenario.model,
        "--request-rate", f"{result.offered_rate_per_s / result.replicas:.4g}",
        "--burstiness", f"{workload.burstiness:g}", "--num-requests", str(requests), "--seed", str(scenario.seed),
        "--num-blocks", str(engine.num_blocks), "--max-num-seqs", str(engine.max_num_seqs),
        "--max-num-batched-tokens", str(engine.max_num_batched_tokens),
    ]  # fmt: skip
    for flag, length in (("--input-len", workload.prompt_tokens), ("--output-len", workload.output_tokens)):
        if length is not None:
            words += [flag, _shorthand(length)]
    if workload.trace is not None:
        words += ["--trace", str(workload.trace.file)]
    return shlex.join([*words, "--out", "out/check"])


def mean_tokens(length: Length) -> float:
    """Mean of a distribution of lengths."""
    match length:
        case FixedLength():
            return length.tokens
        case UniformLength():
            return (length.low + length.high) / 2
        case LogNormalLength():
            return length.mean


def _shorthand(length: Length) -> str:
    match length:
        case FixedLength():
            return str(length.tokens)
        case UniformLength():
            return f"uniform:{length.low}:{length.high}"
        case LogNormalLength():
            bound = "" if length.longest is None else f":{length.longest}"
            return f"lognormal:{length.mean:g}:{length.cv:g}{bound}"
