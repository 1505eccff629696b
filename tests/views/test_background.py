"""Work off the script thread: shared, bounded, and stopped when nobody waits."""

import threading

import pytest

from roofline.errors import InputError
from views.background import Background

WAIT_S = 10.0


@pytest.fixture
def background():
    return Background(num_workers=2, max_answers=3)


def test_equal_questions_are_worked_on_once(background):
    calls = []
    release = threading.Event()

    def work(job):
        calls.append(1)
        release.wait(WAIT_S)
        return "answer"

    first, second = background.ask("a", "key", work), background.ask("b", "key", work)
    assert first is second and not first.is_over
    release.set()
    assert second.wait(WAIT_S) and second.answer() == "answer"
    assert background.ask("c", "key", work).answer() == "answer"
    assert len(calls) == 1


def test_two_users_do_not_wait_for_each_other(background):
    release = threading.Event()
    slow = background.ask("a", "slow", lambda job: release.wait(WAIT_S))
    quick = background.ask("b", "quick", lambda job: 1)
    assert quick.wait(WAIT_S) and quick.answer() == 1 and not slow.is_over
    release.set()
    assert slow.wait(WAIT_S)


def _endless(reports, may_report):
    def work(job):
        while may_report.wait(WAIT_S):
            job.count(1)
            reports.append(1)
            threading.Event().wait(0.001)

    return work


def test_work_that_nobody_waits_for_stops(background):
    may_report = threading.Event()
    may_report.set()
    job = background.ask("a", "old", _endless([], may_report))
    background.keep_only("a", {"new"})
    assert job.wait(WAIT_S)
    again = background.ask("a", "old", lambda job: "done")
    assert again is not job and again.wait(WAIT_S) and again.answer() == "done"


def test_work_goes_on_while_another_user_waits(background):
    reports, may_report = [], threading.Event()
    may_report.set()
    job = background.ask("a", "shared", _endless(reports, may_report))
    background.ask("b", "shared", _endless(reports, may_report))
    background.keep_only("a", set())
    before = len(reports)
    while len(reports) < before + 3:
        assert not job.wait(0.01)
    assert job.num_requests >= before + 3
    background.keep_only("b", set())
    assert job.wait(WAIT_S)


def test_an_error_reaches_everyone_who_asks(background):
    def work(job):
        raise InputError("rate is -1; it must be positive.")

    for asker in ("a", "b"):
        job = background.ask(asker, "bad", work)
        assert job.wait(WAIT_S)
        with pytest.raises(InputError, match="rate is -1"):
            job.answer()


def test_the_oldest_answers_are_forgotten(background):
    calls = []
    for key in ["0", "1", "2", "3", "4", "4", "0"]:
        assert background.ask("a", key, lambda job, key=key: calls.append(key)).wait(WAIT_S)
    assert calls == ["0", "1", "2", "3", "4", "0"]
