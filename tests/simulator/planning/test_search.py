"""The search finds the smallest number, asks none twice and few in all."""

import math

from hypothesis import given
from hypothesis import strategies as st

from simulator.planning.search import smallest


@given(st.data())
def test_it_finds_the_smallest(data):
    limit = data.draw(st.integers(1, 300))
    truth = data.draw(st.integers(1, limit + 1))
    guess = data.draw(st.integers(0, 400))
    asked = []
    found = smallest(lambda n: (asked.append(n), n >= truth)[1], guess, limit)
    assert found == (truth if truth <= limit else None)
    assert len(set(asked)) == len(asked) <= 2 * math.log2(limit + 1) + 3
    assert all(1 <= n <= limit for n in asked)
    if found is not None and found > 1:
        assert found - 1 in asked
