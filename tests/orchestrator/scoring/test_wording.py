import math
from dataclasses import replace

from orchestrator.scoring.lds import LDS
from orchestrator.scoring.metric import Quantity
from orchestrator.scoring.spread import SPREAD
from orchestrator.scoring.table import ScoreRow
from orchestrator.scoring.wording import ceilings, stands_on

ROW = ScoreRow(
    "trak", "lds", 0.25, 0.125, 0.375, 0.5, "margin", "heldout", 8, 100, 3, 20.5, 1.5, 0.4, 0.6, 0.5, 0.3, 0.7
)


def test_a_ceiling_is_said_once_a_measure_with_its_interval() -> None:
    assert ceilings(LDS, [ROW, replace(ROW, estimator="random")]) == [
        "margin: noise ceiling 0.500, 95% interval 0.400 to 0.600"
    ]
    assert len(ceilings(LDS, [ROW, replace(ROW, measure="loss")])) == 2


def test_where_the_ceiling_reaches_zero_there_was_nothing_to_find() -> None:
    (line,) = ceilings(LDS, [replace(ROW, ceiling_low=0.0, share=math.nan)])
    assert line.startswith(
        "margin: nothing to find. The noise ceiling cannot be told from 0 (95% interval 0.000 to 0.600)"
    )


def test_what_it_means_that_there_was_nothing_to_find_is_said_of_each_quantity() -> None:
    of_lds, of_spread = (ceilings(one, [replace(ROW, ceiling_low=0.0)])[0] for one in (LDS, SPREAD))
    assert ": models of one subset agree no more than models of different ones. More seeds" in of_lds
    assert ": models of one subset vary with their seed as much as those of another. More seeds" in of_spread


def test_where_there_is_no_ceiling_it_is_said_what_it_takes() -> None:
    unknown = replace(ROW, ceiling=math.nan, ceiling_low=math.nan)
    assert ceilings(LDS, [unknown, unknown]) == ["margin: no noise ceiling, which needs 5 subsets with 2 seeds each"]
    assert ceilings(SPREAD, [unknown]) == ["margin: no noise ceiling, which needs 5 subsets with 4 seeds each"]
    assert ceilings(Quantity("mine", "mine", has_ceiling=True), [unknown]) == []


def test_nothing_is_said_of_a_ceiling_that_is_unknown_or_means_nothing() -> None:
    assert ceilings(LDS, [replace(ROW, ceiling_low=math.nan)]) == []
    assert ceilings(Quantity("mine", "mine"), [ROW]) == []


def test_what_was_fitted_in_one_order_and_judged_in_the_other_is_said() -> None:
    same = replace(ROW, order="shared", fitted_order="shared")
    other = replace(same, estimator="datamodel", fitted_order="own")
    line = "fitted in own order and judged in shared order, which are different quantities: datamodel"
    assert line in stands_on([same, other, other, replace(ROW, order="shared")])
    assert not [line for line in stands_on([same]) if "fitted" in line]
