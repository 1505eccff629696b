import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roofline.errors import InputError
from roofline.length_mix import RequestLength, held_blocks, parse_lengths, read_lengths

BLOCK = 16


def blocks_of(tokens: int) -> int:
    return -(-tokens // BLOCK)


LENGTHS = st.lists(
    st.builds(RequestLength, st.integers(1, 5000), st.integers(1, 3000), st.floats(0.1, 10)), min_size=1, max_size=5
)


@given(LENGTHS, st.integers(1, 100_000), st.floats(0.5, 0.999))
def test_more_room_or_less_confidence_never_lets_fewer_in(lengths, capacity, confidence):
    held = held_blocks(lengths, blocks_of)
    here = held.concurrent(capacity, confidence)
    assert here <= held.concurrent(2 * capacity, confidence)
    assert here <= held.concurrent(capacity, 0.5)
    assert here >= capacity // held.largest
    assert here * min(blocks_of(one.prompt_tokens) for one in lengths) <= capacity


@given(LENGTHS)
def test_one_request_holds_between_its_prompt_and_its_whole(lengths):
    held = held_blocks(lengths, blocks_of)
    least = min(blocks_of(one.prompt_tokens) for one in lengths)
    assert least * (1 - 1e-12) <= held.mean <= held.largest * (1 + 1e-12)  # a mean is rounded in its last bits


def test_equal_requests_hold_their_prompt_and_half_their_answer():
    held = held_blocks([RequestLength(1600, 3200)], lambda tokens: tokens)
    assert held.mean == pytest.approx(3200, rel=0.001)
    assert held.standard_deviation == pytest.approx(3200 / math.sqrt(12), rel=0.001)


def test_long_answers_are_met_more_often_than_they_arrive():
    held = held_blocks([RequestLength(100, 100), RequestLength(100, 900)], lambda tokens: tokens)
    assert held.mean == pytest.approx(0.1 * 150 + 0.9 * 550, rel=0.01)


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_the_sum_overflows_as_rarely_as_promised(seed):
    """Against drawn moments: a request chosen by its stay, at a uniform point of its answer."""
    lengths = [RequestLength(200, 400, 5), RequestLength(3000, 200, 2), RequestLength(500, 2000, 1)]
    capacity, confidence = 20_000, 0.99
    number = held_blocks(lengths, blocks_of).concurrent(capacity, confidence)
    rng = np.random.default_rng(seed)
    stay = np.array([one.weight * one.output_tokens for one in lengths])
    kind = rng.choice(len(lengths), size=(2000, number), p=stay / stay.sum())
    prompt = np.array([one.prompt_tokens for one in lengths])[kind]
    output = np.array([one.output_tokens for one in lengths])[kind]
    held = np.ceil((prompt + output * rng.random(kind.shape)) / BLOCK).sum(axis=1)
    assert 0.001 <= (held > capacity).mean() <= 0.025  # 1 % promised; 2,000 draws and the normal form


def test_lengths_as_users_write_them(tmp_path):
    assert parse_lengths("1000+200@3, 8000+500") == [RequestLength(1000, 200, 3), RequestLength(8000, 500)]
    file = tmp_path / "requests.csv"
    file.write_text("prompt_tokens,output_tokens,user\n10,5,a\n10,5,b\n20,7,c\n")
    assert sorted(read_lengths(file), key=lambda one: one.weight) == [RequestLength(20, 7), RequestLength(10, 5, 2)]


@pytest.mark.parametrize("text", ["1000", "a+b", "1000+", "0+5", "10+5@0", "10+5@x", ""])
def test_wrong_lengths_are_refused(text):
    with pytest.raises(InputError, match="length"):
        parse_lengths(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prompt_tokens\n1\n", "lacks output_tokens"),
        ("prompt_tokens,output_tokens\n", "lacks rows"),
        ("prompt_tokens,output_tokens\n1,x\n", "no whole number"),
        ("prompt_tokens,output_tokens\n1,0\n", "has no meaning"),
        ("", "is no table"),
    ],
)
def test_wrong_files_are_refused(tmp_path, content, message):
    file = tmp_path / "requests.csv"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_lengths(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_lengths(tmp_path / "absent.csv")


def test_confidence_is_a_share():
    with pytest.raises(InputError, match=r"confidence is 1\.0"):
        held_blocks([RequestLength(1, 1)], blocks_of).concurrent(10, 1.0)
