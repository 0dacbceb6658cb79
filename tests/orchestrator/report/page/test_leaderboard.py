import pytest

from orchestrator.report.page import leaderboard


@pytest.mark.parametrize(
    ("needs", "family"),
    [
        ({"subsets"}, "retraining"),
        ({"leave_one_out"}, "retraining"),
        ({"checkpoints", "gradients"}, "gradients"),
        ({"checkpoints"}, "other"),
        (set(), "other"),
    ],
)
def test_the_family_follows_from_the_needs(needs, family):
    assert leaderboard.family_of(frozenset(needs)) == family


def test_an_attribution_nobody_registered_belongs_to_neither_family(make):
    assert leaderboard.family(make(families={}), "my_file.npy") == "other"


def test_the_given_family_wins(make):
    assert leaderboard.family(make(families={"trak": "retraining"}), "trak") == "retraining"


def test_the_pair_is_drawn_from_what_is_available_in_the_board_s_order(make):
    board = leaderboard.entries(make())
    names = [entry.estimator for entry in leaderboard.pair(board, {"tracin", "trak", "difference_in_means", "random"})]
    assert names == ["difference_in_means", "trak"]
    assert leaderboard.pair(board, set()) == ()
    assert leaderboard.pair((), {"trak"}) == ()
