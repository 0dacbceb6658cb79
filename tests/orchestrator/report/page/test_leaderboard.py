import pytest

from orchestrator.report.page import figures, leaderboard


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


def test_entries_that_differ_in_their_number_of_models_are_joined_by_rising_cost(make):
    curves = {"trak": "a", "influence": "a", "tracin": "a", "similarity": "b"}
    board = leaderboard.entries(make(curves=curves))
    names = [[board[place].estimator for place in places] for places in figures.curves(board, lambda e: -e.lds.value)]
    assert names == [["influence", "trak", "tracin"]], "the best is the cheapest here; one alone is no curve"
    assert figures.curves(leaderboard.entries(make()), lambda entry: entry.lds.value) == []


def test_the_figure_draws_a_line_through_a_curve(make):
    board = leaderboard.entries(make())
    joined = leaderboard.entries(make(curves={"trak": "a", "influence": "a"}))
    plain, lined = (
        str(figures.lds_against(one, lambda e: e.seconds + 1, "time", "cost")).count("<path") for one in (board, joined)
    )
    assert lined == plain + 1
