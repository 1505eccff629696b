"""What is held out together: whole cells, and never all of one kind of pass."""

import numpy as np
import pytest

from calibration.candidates import FOLDS, TERM_SETS, Candidate, _folds, _sample, cells_of, choose
from calibration.measurements import join
from tests.calibration.synthetic import TRUTH, measured


@pytest.fixture(scope="module")
def lopsided():
    """Few mixed passes beside thousands of decodes, all but a few of the same batch and context."""
    steps = measured(300)
    one_decode = steps.select(np.flatnonzero(steps.regions == 0)[:1])
    return join([steps, one_decode.select(np.zeros(5_000, dtype=int))])


def test_a_cell_is_held_out_whole(lopsided):
    cells = cells_of(lopsided)
    folds = _folds(cells, lopsided.regions)
    assert all(len(np.unique(folds[cells == cell])) == 1 for cell in np.unique(cells))


def test_every_fold_leaves_passes_of_every_kind_to_learn_from(lopsided):
    folds = _folds(cells_of(lopsided), lopsided.regions)
    assert len(np.unique(folds)) == FOLDS
    for fold in range(FOLDS):
        assert set(lopsided.regions[folds != fold]) == {0, 1, 2}


def test_frequent_cells_are_thinned_and_rare_ones_kept(lopsided):
    cells = cells_of(lopsided)
    sample = _sample(cells)
    sizes, kept = np.bincount(cells), np.bincount(cells, weights=sample)
    assert (kept[sizes <= 30] == sizes[sizes <= 30]).all()
    assert kept[np.argmax(sizes)] < 0.1 * sizes.max()


def test_the_right_join_is_chosen_however_lopsided_the_steps(lopsided):
    chosen = choose(lopsided, None)
    assert (chosen.join, chosen.scope) == (TRUTH.join, TRUTH.scope)


def test_adding_costs_have_no_separate_weight_read():
    assert Candidate(TERM_SETS[0], "max").active.sum() == Candidate(TERM_SETS[0], "sum").active.sum() + 1
