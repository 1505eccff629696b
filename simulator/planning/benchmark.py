"""The command that would check a prediction on the real engine, at the predicted load."""

import shlex

from calibration.fitted import FittedStepTime
from engine.core.trace_meta import ENGINE_NAME
from roofline.model_shape import hugging_face_id
from simulator.deployment import Deployment
from simulator.output.results import RunResult
from simulator.scenario import FixedLength, Length, LogNormalLength, UniformLength


def benchmark_command(deployment: Deployment, result: RunResult) -> str:
    """`vllm bench serve`, or this project's own benchmark where its engine is what was measured."""
    step_time = deployment.step_time
    own = isinstance(step_time, FittedStepTime) and step_time.provenance.engine.get("name") == ENGINE_NAME
    return _ours(deployment, result) if own else _vllm(deployment, result)


def _vllm(deployment: Deployment, result: RunResult) -> str:
    """Against the whole fleet; it draws no lengths but these, so every request has the mean ones."""
    scenario, recorded = deployment.scenario, deployment.recorded
    workload, slo = scenario.workload, scenario.slo
    words = [
        "vllm", "bench", "serve", "--model", hugging_face_id(scenario.model),
        "--request-rate", f"{result.offered_rate_per_s:g}", "--burstiness", f"{workload.burstiness:g}",
        "--num-prompts", str(result.num_requests + result.warmup_requests), "--dataset-name", "random",
        "--ignore-eos", "--seed", str(scenario.seed),
        "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", f"50,90,{slo.percentile:g}",
    ]  # fmt: skip
    for flag, name in (("input", "prompt_tokens"), ("output", "output_tokens")):
        mean = mean_tokens(getattr(workload, name)) if recorded is None else recorded.requests[name].mean()
        words += [f"--random-{flag}-len", str(round(mean))]
    if scenario.client.max_concurrency is not None:
        words += ["--max-concurrency", str(scenario.client.max_concurrency)]
    targets = {"ttft": slo.ttft_ms, "tpot": slo.tpot_ms, "e2el": slo.e2e_ms}
    given = [f"{name}:{target:g}" for name, target in targets.items() if target is not None]
    words += ["--goodput", *given] if given else []
    return shlex.join(words)


def _ours(deployment: Deployment, result: RunResult) -> str:
    """One replica under its share of the load: this benchmark runs one engine."""
    scenario, engine = deployment.scenario, deployment.engine
    workload = scenario.workload
    requests = -(-(result.num_requests + result.warmup_requests) // result.replicas)
    words = [
        "engine", "bench", "serve", "--model", scenario.model,
        "--request-rate", f"{result.offered_rate_per_s / result.replicas:.4g}",
        "--burstiness", f"{workload.burstiness:g}", "--num-requests", str(requests), "--seed", str(scenario.seed),
        "--num-blocks", str(engine.num_blocks), "--max-num-seqs", str(engine.max_num_seqs),
        "--max-num-batched-tokens", str(engine.max_num_batched_tokens), "--max-model-len", str(engine.max_model_len),
        "--block-size", str(engine.block_size), "--policy", engine.policy, "--dtype", scenario.weight_dtype,
        "--prefix-caching" if engine.enable_prefix_caching else "--no-prefix-caching",
        "--chunked-prefill" if engine.enable_chunked_prefill else "--no-chunked-prefill",
        "--async-scheduling" if engine.async_scheduling else "--no-async-scheduling",
    ]  # fmt: skip
    if scenario.client.max_concurrency is not None:
        words += ["--max-concurrency", str(-(-scenario.client.max_concurrency // result.replicas))]
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
