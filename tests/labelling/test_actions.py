"""Actions on a micrograph's labels, what they leave, and undoing them."""

import pytest

from picking.errors import UserError
from picking.labelling.folder.actions import checked
from picking.labelling.folder.history import History

SIZES = {"a.mrc": (200, 300), "b.mrc": (200, 300)}


def history_of(*actions):
    history = History()
    for number, action in enumerate(actions):
        own = {"id": f"id{number}", "micrograph": "a.mrc", **action}
        history.take({**checked(own, SIZES), "time": f"2026-01-01T00:00:{number:02d}"})
    return history


def places(history, of_particles=True, name="a.mrc"):
    return history.of(name).places_px(of_particles)


def add(y, x, **more):
    return {"do": "add", "y": y, "x": x, **more}


def test_a_mark_is_added_moved_and_removed():
    actions = [add(10, 20), add(50, 60), {"do": "move", "mark": "id0", "y": 12, "x": 21.5}]
    assert places(history_of(*actions)) == [(12, 21.5), (50, 60)]
    assert places(history_of(*actions, {"do": "remove", "mark": "id1"})) == [(12, 21.5)]


def test_a_negative_is_no_particle():
    history = history_of(add(1, 2), {"do": "add_negative", "y": 3, "x": 4})
    assert places(history) == [(1, 2)] and places(history, of_particles=False) == [(3, 4)]


def test_accepted_and_rejected_proposals_become_marks_that_can_be_removed_one_by_one():
    history = history_of(
        {"do": "accept", "centres": [[1, 2], [3, 4]]},
        {"do": "reject", "centres": [[5, 6]]},
        {"do": "remove", "mark": "id0.1"},
    )
    assert places(history) == [(1, 2)] and places(history, of_particles=False) == [(5, 6)]


def test_the_state_goes_from_untouched_to_in_part_complete_and_left_out():
    actions = [add(1, 2), {"do": "complete"}, {"do": "leave_out"}, {"do": "take_back"},
               {"do": "not_complete"}, {"do": "remove", "mark": "id0"}]  # fmt: skip
    states = [history_of(*actions[:n]).of("a.mrc").state for n in range(7)]
    assert states == ["untouched", "in part", "complete", "left out", "complete", "in part",
                      "untouched"]  # fmt: skip


def test_everything_can_be_undone_in_turn_and_done_again():
    actions = [add(y, y) for y in range(1, 30)]
    undone = [{"do": "undo", "of": f"id{n}"} for n in reversed(range(29))]
    redone = [{"do": "redo", "of": f"id{n}"} for n in range(29)]
    assert places(history_of(*actions, *undone)) == []
    assert places(history_of(*actions, *undone, *redone)) == [(y, y) for y in range(1, 30)]


def test_undoing_a_removal_brings_the_mark_back_where_it_was_moved_to():
    actions = [add(1, 2), {"do": "move", "mark": "id0", "y": 5, "x": 6},
               {"do": "remove", "mark": "id0"}, {"do": "undo", "of": "id2"}]  # fmt: skip
    assert places(history_of(*actions)) == [(5, 6)]


def test_undo_goes_to_the_micrograph_that_was_changed_last():
    history = history_of(add(1, 2), add(3, 4, micrograph="b.mrc"))
    assert history.can_undo == "id1"
    event = {"do": "undo", "id": "u", "of": "id1", "time": ""}
    assert history.take(event) == "b.mrc"
    assert places(history, name="b.mrc") == [] and places(history) == [(1, 2)]
    assert (history.can_undo, history.can_redo) == ("id0", "id1")


def test_nothing_is_left_to_redo_once_something_else_was_done():
    history = history_of(add(1, 2), {"do": "undo", "of": "id0"}, add(3, 4))
    assert history.can_redo is None
    assert places(history_of(add(1, 2), {"do": "undo", "of": "id0"}, add(3, 4),
                             {"do": "redo", "of": "id0"})) == [(3, 4)]  # fmt: skip


def test_an_action_that_comes_twice_counts_once():
    event = {**checked({"id": "a", "micrograph": "a.mrc", **add(1, 2)}, SIZES), "time": ""}
    history = History()
    assert history.take(event) == "a.mrc"
    assert history.take(event) is None
    assert places(history) == [(1, 2)]


def test_moving_what_somebody_else_removed_does_nothing():
    actions = [add(1, 2), {"do": "remove", "mark": "id0"},
               {"do": "move", "mark": "id0", "y": 3, "x": 4}]  # fmt: skip
    assert places(history_of(*actions)) == []


@pytest.mark.parametrize(
    "action, said",
    [
        ([], "an action is an object"),
        ({"do": "delete"}, "there is no action 'delete'"),
        ({"do": "add", "y": 1, "x": 2, "id": "../../x"}, "id is no id"),
        ({"do": "add", "y": 1, "x": 2, "micrograph": "/etc/passwd"}, "'/etc/passwd' is none of"),
        ({"do": "add", "y": 1}, "a place is two numbers"),
        ({"do": "add", "y": True, "x": 2}, "a place is two numbers"),
        ({"do": "add", "y": float("nan"), "x": 2}, "a place is two numbers"),
        ({"do": "add", "y": 200, "x": 2}, "(y 200, x 2) is not on the micrograph"),
        ({"do": "add", "y": -0.1, "x": 2}, "is not on the micrograph"),
        ({"do": "accept", "centres": []}, "no list of 1 to 20,000"),
        ({"do": "accept", "centres": [[1, 2]] * 20_001}, "no list of 1 to 20,000"),
        ({"do": "junk", "path": [[1, 2]], "radius": 0}, "the radius is no number"),
        ({"do": "junk", "path": [[1, 2]], "radius": 301}, "the radius is no number"),
        ({"do": "undo", "of": 5}, "of is no id"),
        ({"do": "remove"}, "mark is no id"),
    ],
)
def test_what_is_no_action_is_refused_in_a_sentence(action, said):
    if isinstance(action, dict):
        action = {"id": "i", "micrograph": "a.mrc", **action}
    with pytest.raises(UserError) as error:
        checked(action, SIZES)
    assert said in str(error.value)


def test_what_an_action_does_not_need_is_not_kept():
    action = {
        "id": "i",
        "micrograph": "a.mrc",
        "do": "add",
        "y": 1.239,
        "x": 299.999,
        "html": "<b>",
    }
    assert checked(action, SIZES) == {
        "id": "i", "do": "add", "micrograph": "a.mrc", "y": 1.23, "x": 299.99
    }  # fmt: skip
