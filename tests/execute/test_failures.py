"""What a failure means for a pack."""

import pytest

from evometa.errors import StudyError
from evometa.execute.early_errors import EarlyErrors
from evometa.execute.failures import ATTEMPTS, Failure, Pack, judge
from evometa.records import Candidate, Evaluation, Status
from tests.contracts.executor import candidates


def fate(pack, guilty, failure):
    """Judge until nothing is left to try; return the status of each candidate."""
    found, waiting, deaths = {}, [pack], 0
    while waiting:
        pack = waiting.pop()
        if any(candidate.number == guilty for candidate in pack.candidates):
            deaths += 1
            again, given_up = judge(pack, failure, "node", "it died")
            waiting += again
            found |= {e.candidate.number: e.status for e in given_up}
        else:
            found |= {candidate.number: Status.OK for candidate in pack.candidates}
    return found, deaths


@pytest.mark.parametrize(
    ("failure", "status", "most"),
    [
        (Failure.CRASH, Status.LOST, 3 + 3),
        (Failure.TIMEOUT, Status.TIMEOUT, 3 + 1),
        (Failure.MEMORY, Status.OOM, 3 + 1),
        (Failure.NODE, Status.LOST, 3 * 4),
    ],
)
def test_the_guilty_one_of_eight_is_found_and_no_other(failure, status, most):
    for guilty in range(8):
        found, deaths = fate(Pack(tuple(candidates(8))), guilty, failure)
        assert found == {n: status if n == guilty else Status.OK for n in range(8)}
        assert deaths <= most


def test_preemption_is_free():
    pack = Pack(tuple(candidates(4)))
    for _ in range(50):
        (pack,), given_up = judge(pack, Failure.PREEMPTED, "here", "")
        assert not given_up and pack.deaths == 0 and pack.avoid == "here"


def test_a_lost_node_sends_the_whole_pack_to_another():
    pack = Pack(tuple(candidates(4)))
    (again,), given_up = judge(pack, Failure.NODE, "here", "")
    assert again.candidates == pack.candidates and again.avoid == "here" and not given_up


def test_out_of_memory_is_blamed_only_alone_and_single():
    (again,), _ = judge(Pack(tuple(candidates(1))), Failure.MEMORY, "", "")
    assert again.alone
    _, (evaluation,) = judge(again, Failure.MEMORY, "", "killed")
    assert evaluation.status is Status.OOM and "itself" in evaluation.error


def test_three_attempts():
    (pack,), _ = judge(Pack(tuple(candidates(1))), Failure.CRASH, "", "")
    (pack,), _ = judge(pack, Failure.NODE, "", "")
    assert pack.deaths == ATTEMPTS - 1
    _, (evaluation,) = judge(pack, Failure.CRASH, "", "segmentation fault")
    assert evaluation.error == "its worker died 3 times; the last: segmentation fault"


def result(number, error="", copied_from=""):
    status = Status.ERROR if error else Status.OK
    candidate = Candidate(number, {"width": number}, 0)
    return Evaluation(candidate, status, error=error, copied_from=copied_from)


TRACE = "Traceback:\n  File \"study.py\", line {}\nKeyError: 'widht'\n"


def test_three_equal_errors_at_first_stop_the_search_with_message_and_genome():
    early = EarlyErrors()
    early.recorded(result(0, TRACE.format(7)))
    early.recorded(result(1, TRACE.format(8)))
    early.recorded(result(3, TRACE.format(8), copied_from="c000001"))  # no new evidence
    with pytest.raises(StudyError, match=r"(?s)same error.*\{\"width\":2\}.*KeyError: 'widht'"):
        early.recorded(result(2, TRACE.format(7)))


def test_different_errors_or_one_that_works_do_not():
    early = EarlyErrors()
    for number in range(9):
        early.recorded(result(number, f"ValueError: {number % 2}"))
    for works in (EarlyErrors.recorded, EarlyErrors.found):
        early = EarlyErrors()
        works(early, result(0))
        for number in range(1, 9):
            early.recorded(result(number, "ValueError"))


def test_stored_errors_do_not_keep_a_mended_study_from_going_on():
    early = EarlyErrors()
    for number in range(9):
        early.found(result(number, "ModuleNotFoundError"))
    early.recorded(result(9))
