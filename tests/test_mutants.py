"""The bugs of `make mutants` still fit the project: each one's text is where it says, and its tests exist."""

import pytest

from tests.mutants.__main__ import ROOT, Bug, StaleBugError, known_bugs, with_bug


@pytest.mark.parametrize("bug", known_bugs(), ids=lambda bug: bug.name)
def test_the_bug_can_be_put_in(bug: Bug) -> None:
    compile(with_bug(bug, ROOT), bug.file, "exec")


def test_a_bug_that_fits_no_longer_is_an_error() -> None:
    bug = known_bugs()[0]
    with pytest.raises(StaleBugError, match=r"must occur once in th_jax/losses\.py, but occurs 0 times"):
        with_bug(bug._replace(old="a text that is not there"), ROOT)
    with pytest.raises(StaleBugError, match=r"names th_jax/no\.py, which does not exist"):
        with_bug(bug._replace(file="th_jax/no.py"), ROOT)
    with pytest.raises(StaleBugError, match=r"names tests/test_losses\.py::test_no, which does not exist"):
        with_bug(bug._replace(tests=["tests/test_losses.py::test_no"]), ROOT)


def test_names_are_used_once() -> None:
    names = [bug.name for bug in known_bugs()]
    assert len(set(names)) == len(names)
