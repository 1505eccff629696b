"""Other libraries' kernels on the inputs of kernel_cases.py, where they are installed: none is needed.

What a library cannot do here (another architecture, a block size) shows as a sentence in the kernel table; versions
differ in more ways than are worth telling apart.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.bench.kernel_sizes import Do, Inputs

_WORKSPACE_BYTES = 256 << 20  # what FlashInfer's wrappers ask for


def decode() -> dict[str, Do]:
    """One query token a sequence."""
    return {**_flash_attention(), **_vllm_flash_attention(1), **_where("flashinfer", "FlashInfer", _flashinfer_decode)}


def prefill(tokens: int, history: int) -> dict[str, Do]:
    """A chunk of one sequence."""
    del history  # FlashAttention aligns queries and keys at their ends, as a chunk after its history is
    return {**_flash_attention(), **_vllm_flash_attention(tokens)}


def norm(eps: float) -> dict[str, Do]:
    """Residual addition and RMSNorm."""

    def fused(x: Inputs) -> Tensor:
        _vllm_ops().fused_add_rms_norm(x["x"], x["residual"], x["weight"], eps)
        return x["x"]

    return _where("vllm._custom_ops", "vLLM, in place", fused)


def silu() -> dict[str, Do]:
    """SiLU of the gate times the up half."""

    def fused(x: Inputs) -> Tensor:
        gate_up = x["gate_up"]
        out = gate_up.new_empty((len(gate_up), gate_up.shape[-1] // 2))
        _vllm_ops().silu_and_mul(out, gate_up)
        return out

    return _where("vllm._custom_ops", "vLLM", fused)


def _flash_attention() -> dict[str, Do]:
    """FlashAttention 3 and 2, on the dense copies: their pages are larger than ours."""

    def third(x: Inputs) -> Tensor:
        from flash_attn_interface import flash_attn_with_kvcache

        return _attended(flash_attn_with_kvcache, x)

    def second(x: Inputs) -> Tensor:
        from flash_attn import flash_attn_with_kvcache

        return _attended(flash_attn_with_kvcache, x)

    return {
        **_where("flash_attn_interface", "FlashAttention-3, not paged", third),
        **_where("flash_attn", "FlashAttention-2, not paged", second),
    }


def _attended(attend: Callable[..., Any], x: Inputs) -> Tensor:
    q, k, v = x["q"], x["dense_k"].transpose(1, 2), x["dense_v"].transpose(1, 2)
    out = attend(q.view(len(k), -1, *q.shape[1:]), k, v, cache_seqlens=x["ends"], causal=True)
    return (out[0] if isinstance(out, tuple) else out).reshape(q.shape)


def _vllm_flash_attention(tokens: int) -> dict[str, Do]:
    def attend(x: Inputs) -> Tensor:
        from vllm.vllm_flash_attn import flash_attn_varlen_func

        length = x["tables"].shape[1] * x["k_cache"].shape[1]
        out = flash_attn_varlen_func(
            x["q"], x["k_cache"], x["v_cache"], max_seqlen_q=tokens, cu_seqlens_q=x["starts"], max_seqlen_k=length,
            seqused_k=x["ends"], block_table=x["tables"], causal=True,
        )  # fmt: skip
        return out[0] if isinstance(out, tuple) else out

    return _where("vllm.vllm_flash_attn", "vLLM's FlashAttention", attend)


def _vllm_ops() -> Any:
    """Its compiled operations, which are there once this module of it is loaded."""
    importlib.import_module("vllm._custom_ops")
    return torch.ops._C


def _flashinfer_decode(x: Inputs) -> Tensor:
    """Plans once for a set of inputs: an engine plans once a step, for all layers."""
    if "flashinfer" not in x:
        x["flashinfer"] = _flashinfer_plan(x)
    out: Tensor = x["flashinfer"].run(x["q"], (x["k_cache"], x["v_cache"]))
    return out


def _flashinfer_plan(x: Inputs) -> Any:
    from flashinfer import BatchDecodeWithPagedKVCacheWrapper

    q, tables, size = x["q"], x["tables"], x["k_cache"].shape[1]
    workspace = torch.zeros(_WORKSPACE_BYTES, dtype=torch.uint8, device=q.device)
    wrapper = BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", use_tensor_cores=True)
    indptr = torch.arange(len(tables) + 1, dtype=torch.int32, device=q.device) * tables.shape[1]
    heads, kv_heads, dim = q.shape[1], x["k_cache"].shape[2], q.shape[2]
    last = (x["ends"] - 1) % size + 1
    wrapper.plan(indptr, tables.flatten(), last, heads, kv_heads, dim, size, q_data_type=q.dtype, kv_data_type=q.dtype)
    return wrapper


def _where(module: str, name: str, do: Do) -> dict[str, Do]:
    """The rival, if its module is installed; a broken installation shows when it runs."""
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it would be in
        found = False
    return {name: do} if found else {}
