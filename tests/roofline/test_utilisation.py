"""MBU, MFU and the fraction of the roofline: laws over any amounts of work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofline.hardware import accelerator
from roofline.utilisation import WorkDone, bound_s, utilisation

H200 = accelerator("H200")
AMOUNTS = st.floats(1e3, 1e15)


@given(AMOUNTS, AMOUNTS, st.floats(1e-6, 1e3))
def test_the_fraction_of_one_operation_is_the_larger_of_its_utilisations(memory_bytes, flops, seconds):
    used = utilisation(WorkDone(memory_bytes, flops, seconds), H200, "bf16")
    assert used.fraction == pytest.approx(max(used.mbu, used.mfu))
    assert used.mbu == pytest.approx(memory_bytes / seconds / 4.8e12) and used.busy_s == seconds


@given(AMOUNTS, AMOUNTS)
def test_at_its_bound_an_operation_reaches_one_ceiling_and_no_more(memory_bytes, flops):
    least_s = bound_s(memory_bytes, flops, H200, "bf16")
    used = utilisation(WorkDone(memory_bytes, flops, least_s), H200, "bf16")
    assert used.fraction == pytest.approx(1) and max(used.mbu, used.mfu) <= 1 + 1e-9


def test_parts_one_after_the_other_take_their_own_bound():
    read, multiplied = bound_s(4.8e12, 0, H200, "bf16"), bound_s(0, 989e12, H200, "bf16")
    used = utilisation(WorkDone(4.8e12, 989e12, 4.0), H200, "bf16", least_s=read + multiplied)
    assert (used.fraction, used.mbu, used.mfu) == pytest.approx((0.5, 0.25, 0.25))
