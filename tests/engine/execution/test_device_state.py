"""The device's rows against the obvious: every sequence's last token, position, settings and blocks, laid out anew."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.core.batch import Batch
from engine.core.request import Request
from engine.core.sampling_params import SamplingParams
from engine.execution.device_rows import DeviceRows
from engine.execution.device_state import IDLE, NO_SLOT, DeviceState, StateLayout
from engine.execution.sequence import Sequence
from roofline.step_time import BatchWork

SEQS, BLOCK, MOST_BLOCKS = 6, 4, 30


def batch(**changes):
    return Batch(step=0, work=BatchWork(), **changes)


def fresh_state():
    layout = StateLayout.of(SEQS, MOST_BLOCKS)
    return DeviceRows(layout), DeviceState(layout, BLOCK, "cpu")


class Standing:
    """A sequence as the test knows it: its tokens, of which the host may not have seen the last one."""

    def __init__(self, name, length, blocks, seed):
        self.request = Request(name, length, 64)
        self.request.block_ids = [next(blocks) for _ in range(-(-(length + 1) // BLOCK))]
        self.tokens = list(range(100, 100 + length + 1))
        self.request.num_computed_settled = length + 1
        params = SamplingParams(seed=seed, top_k=length, temperature=0.5 + length, top_p=0.5, min_p=0.25)
        self.sequence = Sequence(self.request, params, list(self.tokens), frozenset())

    def grow(self, blocks):
        """Own a block for every token; True if that took a new one."""
        owned = self.request.block_ids
        before = len(owned)
        while len(owned) * BLOCK < len(self.tokens):
            owned.append(next(blocks))
        return len(owned) > before


@given(data=st.data())
def test_rows_follow_any_changes_with_tokens_the_host_has_not_seen(data):
    (rows, state), standing, blocks = fresh_state(), {}, iter(range(1, 10_000))
    everyone: dict[Request, Standing] = {}
    fresh: list[Standing] = []  # whose chunk of the last step yielded a token
    for step in range(data.draw(st.integers(1, 20))):
        left = data.draw(st.lists(st.sampled_from(list(standing)), unique=True)) if standing else []
        back = [request for request in left if data.draw(st.booleans())]  # leave and join in one batch
        new = [one.request for one in fresh if data.draw(st.booleans())]
        if data.draw(st.booleans()):  # one whose token the host knows
            known = Standing(f"host {step}", data.draw(st.integers(1, 20)), blocks, step)
            everyone[known.request] = known
            new.append(known.request)
        stay = [request for request in standing if request not in left]
        joined = [*back, *new][: SEQS - len(stay)]
        standing = {request: everyone[request] for request in (*stay, *joined)}
        grown = [one.request for one in standing.values() if one.grow(blocks)]
        sequences = {request: one.sequence for request, one in everyone.items()}
        changes = rows.apply(batch(left=tuple(left), joined=tuple(joined), grown=tuple(grown)), sequences)
        state.apply(torch.from_numpy(changes.copies), torch.from_numpy(changes.values))
        check(rows, state, standing)

        sampled = torch.arange(len(rows), dtype=torch.int32) + 1000 * (step + 1)
        state.advance(sampled)
        for request, token in zip(rows.requests, sampled.tolist(), strict=True):
            standing[request].tokens.append(token)
            request.num_computed_settled += 1
        fresh = [Standing(f"{step}.{i}", 3 + i, blocks, i) for i in range(data.draw(st.integers(0, SEQS)))]
        for index, one in enumerate(fresh):
            everyone[one.request] = one
            del one.sequence.token_ids[-1]  # the host has not seen it
            one.tokens[-1] = state.fresh_ids[index] = 7000 + 10 * step + index
        rows.note_fresh([one.request for one in fresh])


def check(rows, state, standing):
    assert set(rows.requests) == set(standing)
    assert (state.positions[len(rows) :] == IDLE).all() and (state.temperature[len(rows) :] == 0).all()
    for row, request in enumerate(rows.requests):
        one, owned = standing[request], request.block_ids
        position = len(one.tokens) - 1
        assert (state.token_ids[row], state.positions[row]) == (one.tokens[-1], position)
        assert state.tables[row, : len(owned)].tolist() == owned
        assert state.slots(len(rows))[row] == owned[position // BLOCK] * BLOCK + position % BLOCK
        settings = one.sequence.settings
        for name in ("temperature", "top_k", "top_p", "min_p"):
            assert getattr(state, name)[row] == settings[name]
        assert state.seeds[row] == settings["seed"]


def test_idle_rows_have_no_context_and_no_slot_and_stay_idle():
    _, state = fresh_state()
    for _ in range(3):
        assert (state.slots(SEQS) == NO_SLOT).all()
        assert (state.positions + 1 == 0).all()
        state.advance(torch.ones(SEQS, dtype=torch.int32))


@given(rows=st.integers(1, 40), blocks=st.integers(1, 40))
def test_places_do_not_overlap_and_sections_are_aligned(rows, blocks):
    layout = StateLayout.of(rows, blocks)
    state = DeviceState(layout, 16, "cpu")
    assert layout.rows >= rows and layout.blocks >= blocks
    for row in range(rows):
        places = [layout.token(row), layout.fresh_token(row), *layout.scalars(row)]
        places += range(layout.table(row), layout.table(row) + layout.blocks)
        state.flat[torch.tensor(places)] += 1
    used = state.flat[torch.tensor([place for row in range(rows) for place in layout.scalars(row)])]
    assert state.flat.max() <= 1 and used.numel() == 7 * rows
    for view in (state.token_ids, state.positions, state.temperature, state.seeds, state.tables):
        assert (view.data_ptr() - state.flat.data_ptr()) % 16 == 0


def test_large_seeds_arrive_whole():
    (rows, state), blocks = fresh_state(), iter(range(1, 99))
    one = Standing("large", 3, blocks, 2**63 - 5)
    changes = rows.apply(batch(joined=(one.request,)), {one.request: one.sequence})
    state.apply(torch.from_numpy(changes.copies), torch.from_numpy(changes.values))
    assert int(state.seeds[0]) == 2**63 - 5


def test_a_step_without_changes_sends_nothing():
    rows, _ = fresh_state()
    changes = rows.apply(batch(), {})
    assert changes.copies.shape == changes.values.shape == (0, 2) and changes.values.dtype == np.int32
