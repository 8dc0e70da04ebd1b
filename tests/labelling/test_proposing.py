"""Which micrograph to look at next."""

import numpy as np

from picking.labelling.proposing import (
    NEXT_IN_LIST,
    NOT_COMPLETE,
    TYPICAL,
    UNCERTAIN,
    UNLIKE,
    propose,
)

STATES = dict.fromkeys("abcde", "untouched")
# On a line: most are alike, and e is unlike all others
FEATURES = {name: np.array([x, 0.0]) for name, x in zip("abcde", (0, 1, 1.1, 1.2, 9), strict=True)}


def proposed(states=STATES, features=FEATURES, uncertainty=None, seen=(), current=None):
    return propose({**STATES, **states}, features, uncertainty or {}, seen, current)


def test_the_first_is_the_one_nearest_to_all_and_the_second_the_farthest_from_it():
    assert proposed() == ("d", TYPICAL)
    assert proposed(current="d", seen="d") == ("e", UNLIKE)


def test_what_was_labelled_or_looked_at_repels():
    assert proposed({"e": "in part", "c": "complete"}) == ("a", UNLIKE)
    assert proposed({"e": "in part"}, seen="a").name in "bcd"


def test_with_scores_the_most_uncertain_comes_first_whatever_it_looks_like():
    assert proposed(uncertainty={"a": 0.1, "b": 0.3, "e": 0.2}) == ("b", UNCERTAIN)
    assert proposed({"b": "left out"}, uncertainty={"a": 0.1, "b": 0.3}) == ("a", UNCERTAIN)


def test_without_thumbnails_it_is_the_next_in_the_list():
    assert proposed(features={}, current="a") == ("b", NEXT_IN_LIST)


def test_when_all_were_seen_those_that_are_not_complete_come_again_and_then_nothing():
    assert proposed(seen="abcde", current="a") == ("b", NOT_COMPLETE)
    done = dict.fromkeys("abcde", "complete")
    assert proposed({**done, "c": "in part"}) == ("c", NOT_COMPLETE)
    assert proposed({**done, "c": "in part"}, current="c") is None


def test_micrographs_that_are_all_alike_are_no_problem():
    same = dict.fromkeys("abcde", np.zeros(3))
    assert proposed(features=same).why == TYPICAL
    assert proposed({"a": "complete"}, features=same).why == UNLIKE
