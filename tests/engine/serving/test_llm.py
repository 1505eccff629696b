"""How requests start, end and are told about; the tokens themselves are test_llm_tokens.py's."""

from dataclasses import replace

import pytest
import torch

from engine.core.config import EngineConfig
from engine.core.sampling_params import SamplingParams
from engine.execution.model import Llama
from engine.execution.weights import load_weights
from engine.serving.llm import LLM
from engine.serving.tokenizer import Tokenizer
from roofline.errors import CapacityError, InputError
from tests.engine.execution.folders import tiny_backend
from tests.engine.models import TINY, MemoryCheckpoint, greedy_tokens, tiny_model

PROMPT = [5, 9, 33, 70, 2]
END = 1


def engine(model, **config):
    tokenizer = Tokenizer(tiny_backend(), frozenset({END}), None, {})
    return LLM(model, tokenizer, EngineConfig(**{"num_blocks": 40, "max_model_len": 256, "max_num_seqs": 8} | config))


@pytest.fixture
def llm(tiny):
    return engine(tiny)


@pytest.fixture(scope="module")
def greedy(tiny_reference):
    """40 tokens, the reference's: none of them the end token, each text's characters known."""
    tokens = greedy_tokens(tiny_reference, PROMPT, 40)
    assert END not in tokens
    return tokens


def one(llm, **params):
    (done,) = llm.generate([PROMPT], SamplingParams(**params))
    assert llm.scheduler.blocks.num_free == llm.config.usable_blocks and not llm.has_work
    return done


def test_length_ends_a_request(llm, greedy):
    done = one(llm, max_tokens=7)
    assert (list(done.token_ids), done.finish_reason) == (greedy[:7], "length")
    assert done.text == llm.text_tokenizer.decode(greedy[:7])


def test_the_context_ends_a_request(tiny, greedy):
    done = one(engine(tiny, max_model_len=len(PROMPT) + 5), max_tokens=100)
    assert (list(done.token_ids), done.finish_reason) == (greedy[:5], "length")


def test_a_stop_token_ends_a_request_and_is_no_text(llm, greedy):
    at = next(i for i, token in enumerate(greedy) if i > 3 and token not in greedy[:i])
    done = one(llm, max_tokens=40, stop_token_ids=(greedy[at],))
    assert (list(done.token_ids), done.finish_reason) == (greedy[: at + 1], "stop")
    assert done.text == llm.text_tokenizer.decode(greedy[:at])


def test_a_stop_string_ends_a_request_and_is_cut(llm, greedy):
    text = llm.text_tokenizer.decode(greedy)
    stop = text[9:12]
    done = one(llm, max_tokens=40, stop=("never seen", stop))
    assert done.finish_reason == "stop" and done.text == text[: text.find(stop)]
    assert stop in llm.text_tokenizer.decode(done.token_ids)


def test_the_models_end_token_ends_a_request_unless_ignored(tiny, greedy):
    tokenizer = Tokenizer(tiny_backend(), frozenset({greedy[3]}), None, {})
    llm = LLM(tiny, tokenizer, EngineConfig(num_blocks=40, max_model_len=256))
    assert len(one(llm, max_tokens=20).token_ids) == greedy.index(greedy[3]) + 1
    assert list(one(llm, max_tokens=20, ignore_eos=True).token_ids) == greedy[:20]


def test_no_end_is_sampled_before_min_tokens(llm, greedy):
    first = greedy[0]
    done = one(llm, max_tokens=12, min_tokens=6, stop_token_ids=(first,))
    assert first not in done.token_ids[:6] and len(done.token_ids) >= 6
    assert list(one(llm, max_tokens=12, stop_token_ids=(first,)).token_ids) == [first]


def test_a_stream_is_the_same_text_in_pieces(llm, greedy):
    parts = list(llm.stream(PROMPT, SamplingParams(max_tokens=20)))
    assert "".join(part.text for part in parts) == llm.text_tokenizer.decode(greedy[:20])
    assert len(parts) > 10 and parts[-1].num_tokens == 20
    assert [part.finish_reason for part in parts] == [None] * (len(parts) - 1) + ["length"]


def test_a_streamed_stop_string_never_shows(llm, greedy):
    stop = llm.text_tokenizer.decode(greedy)[9:12]
    parts = list(llm.stream(PROMPT, SamplingParams(max_tokens=40, stop=(stop,))))
    assert "".join(part.text for part in parts) == one(llm, max_tokens=40, stop=(stop,)).text
    assert parts[-1].finish_reason == "stop"


def test_leaving_a_stream_aborts_its_request(llm):
    stream = llm.stream(PROMPT, SamplingParams(max_tokens=100))
    next(stream)
    assert llm.has_work
    stream.close()
    assert not llm.has_work and llm.scheduler.blocks.num_free == llm.config.usable_blocks


@pytest.mark.parametrize("ahead", [False, True])
def test_aborting_one_leaves_the_others_alone(tiny, greedy, ahead):
    llm = engine(tiny, async_scheduling=ahead)
    keep, drop, late = (llm.add(PROMPT, SamplingParams(max_tokens=20)) for _ in range(3))
    tokens = []
    for step in range(100):
        if step == 3:
            assert llm.abort(drop).finish_reason == "abort"
            assert llm.abort(drop) is None
        if step == 5:
            llm.abort(late)
        if not llm.has_work:
            break
        result = llm.step()
        tokens += [result.tokens[keep]] if keep in result.tokens else []
        assert step < 3 or drop not in result.tokens
    assert tokens == greedy[:20]
    assert llm.scheduler.blocks.num_free == llm.config.usable_blocks


@pytest.mark.parametrize("end", [0, 1, 5])
def test_an_end_learned_one_step_late_wastes_that_step_and_nothing_else(tiny, greedy, end):
    assert greedy[end] not in greedy[:end]
    llm = engine(tiny, async_scheduling=True)
    ended = llm.add(PROMPT, SamplingParams(max_tokens=40, stop_token_ids=(greedy[end],)))
    other = llm.add(PROMPT[:3], SamplingParams(max_tokens=12))
    tokens = {ended: [], other: []}
    while llm.has_work:
        for request, token in llm.step().tokens.items():
            tokens[request].append(token)
    assert tokens[ended] == greedy[: end + 1]
    (alone,) = engine(tiny).generate([PROMPT[:3]], SamplingParams(max_tokens=12))
    assert tokens[other] == list(alone.token_ids)
    assert llm.scheduler.blocks.num_free == llm.config.usable_blocks


def test_a_waiting_request_can_be_aborted(llm):
    request = llm.add(PROMPT, SamplingParams())
    assert llm.abort(request).token_ids == () and not llm.has_work


@pytest.mark.parametrize("ahead", [False, True])
def test_a_seed_fixes_the_answer_whoever_else_is_served(tiny, ahead):
    drawn = SamplingParams(max_tokens=15, temperature=1.0, top_p=0.9, seed=11)
    (alone,) = engine(tiny).generate([PROMPT], drawn)
    others = [SamplingParams(max_tokens=25, temperature=2.0, top_k=9, seed=s) for s in range(5)]
    crowd = engine(tiny, num_blocks=9, async_scheduling=ahead)  # few blocks: some are preempted and resume
    together = crowd.generate([PROMPT] * 6, [drawn, *others])
    assert together[0].token_ids == alone.token_ids
    assert len({done.token_ids for done in together}) == 6


def test_requests_without_a_seed_get_their_own(tiny):
    params = SamplingParams(max_tokens=15, temperature=1.5)
    first, second = engine(tiny).generate([PROMPT] * 2, params)
    assert first.token_ids != second.token_ids
    assert engine(tiny).generate([PROMPT] * 2, params)[0].token_ids == first.token_ids


def test_a_step_tells_what_it_did(llm):
    request = llm.add(PROMPT, SamplingParams(max_tokens=1), request_id="mine", arrival_s=2.5, priority=3)
    result = llm.step()
    assert (request.request_id, request.arrival_s, request.priority) == ("mine", 2.5, 3)
    assert result.batch.work.prefill_tokens == len(PROMPT)
    assert list(result.tokens) == [request] and result.finished == ((request, "length"),)
    timings = result.timings
    assert min(timings.schedule_s, timings.prepare_s, timings.device_s, timings.sample_s) > 0


def test_a_step_without_work_does_nothing(llm):
    result = llm.step()
    assert result.batch.is_empty and not result.tokens and not result.completions


def test_memory_of_ended_requests_is_let_go(llm):
    for _ in range(3):
        llm.generate([PROMPT] * 5, SamplingParams(max_tokens=3))
    llm.step()
    llm.step()
    assert not llm._sequences and not llm._detokenizers


@pytest.mark.parametrize(
    ("prompt", "error", "said"),
    [
        ([], InputError, "the prompt is empty"),
        ([5] * 256, InputError, "the prompt has 256 tokens, but the context is 256"),
        ([5, 101], InputError, "outside 0 to 100"),
        ([-1], InputError, "outside 0 to 100"),
        ([5] * 100, CapacityError, "100 prompt tokens and up to 60 output tokens does not fit the KV cache of 144"),
    ],
)
def test_what_could_never_run_is_refused_before_anything_does(tiny, prompt, error, said):
    llm = engine(tiny, num_blocks=10)
    with pytest.raises(error, match=said):
        llm.generate([PROMPT, prompt], SamplingParams(max_tokens=60))
    assert not llm.has_work


def test_the_largest_request_that_fits_runs(tiny):
    llm = engine(tiny, num_blocks=4)  # 48 tokens of KV; the last token's is never written
    assert len(one(llm, max_tokens=48 + 1 - len(PROMPT)).token_ids) == 44
    with pytest.raises(CapacityError):
        one(llm, max_tokens=48 + 2 - len(PROMPT))


def test_texts_need_a_tokenizer(tiny):
    llm = LLM(tiny, None, EngineConfig(num_blocks=10, max_model_len=256))
    with pytest.raises(InputError, match="no tokenizer"):
        llm.generate(["text"])
    with pytest.raises(InputError, match="stop strings need a tokenizer"):
        llm.generate([PROMPT], SamplingParams(max_tokens=9, stop=("x",)))
    assert llm.generate([PROMPT], SamplingParams(max_tokens=2))[0].text == ""


def test_params_are_one_for_all_or_one_for_each(llm):
    with pytest.raises(InputError, match="2 sampling params for 3 prompts"):
        llm.generate([PROMPT] * 3, [SamplingParams()] * 2)


def test_settings_are_checked_on_loading(tiny):
    with pytest.raises(InputError, match="max_model_len is 500, but tiny has a context of 256"):
        engine(tiny, max_model_len=500)
    with pytest.raises(InputError, match="'max_seqs' is not known"):
        LLM.load(max_seqs=3)
    with pytest.raises(InputError, match="threads is 0"):
        LLM.load(num_threads=0)
    with pytest.raises(InputError, match="int8"):
        LLM.load(dtype="int8")


def test_a_kv_budget_below_two_blocks_is_refused():
    with pytest.raises(CapacityError, match="a KV budget of 1,000 bytes holds 0 blocks"):
        LLM.load(kv_memory_bytes=1000)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_formats_run(dtype):
    llm = engine(Llama(TINY, load_weights(MemoryCheckpoint(TINY), dtype)))
    assert len(one(llm, max_tokens=20, ignore_eos=True).token_ids) == 20


@pytest.mark.parametrize("kv_heads", [1, 6])
def test_other_groupings_batch_like_alone(kv_heads):
    model = tiny_model(replace(TINY, num_kv_heads=kv_heads))
    prompts = [PROMPT * n for n in (1, 3, 9)]
    together = engine(model).generate(prompts, SamplingParams(max_tokens=12))
    for prompt, done in zip(prompts, together, strict=True):
        assert engine(model).generate([prompt], SamplingParams(max_tokens=12))[0].token_ids == done.token_ids


@pytest.mark.model
def test_the_embedded_model_knows_the_capital_of_france(smollm2):
    prompt = smollm2.text_tokenizer.chat([{"role": "user", "content": "What is the capital of France?"}])
    (done,) = smollm2.generate([prompt], SamplingParams(max_tokens=20))
    assert (done.text, done.finish_reason) == ("The capital of France is Paris.", "stop")
