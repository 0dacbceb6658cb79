import math
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from orchestrator.report.page.html import render
from workers.errors import DataError
from workers.runs import Queries


class Page(HTMLParser):
    """Everything a test asks of a page: its ids, its references, its tags, its text."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text: str):
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: Counter[str] = Counter()
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        given = dict(attrs)
        if "id" in given:
            self.ids.append(given["id"])
        self.references += [given[k] for k in ("href", "src", "xlink:href", "srcset", "action", "data") if k in given]
        self.references += re.findall(r"url\(([^)]*)\)", " ".join(v or "" for v in given.values()))
        if tag == "img":
            self.images.append(given)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def board(html: str) -> str:
    return html.split('<table class="board">')[1].split("</table>")[0]


def test_it_is_one_self_contained_page_without_scripts(html):
    page = Page(html)
    assert all(r == "data:," or r.startswith(("data:image/png;base64,", "#")) for r in page.references)
    assert not re.search(r"https?:|//[a-z]|@import|\bxmlns", re.sub(r"base64,[A-Za-z0-9+/=]+", "", html))
    assert page.tags["script"] == page.tags["iframe"] == 0
    assert not re.search(r"\son[a-z]+=", html)


def test_ids_are_unique_and_references_inside_the_page_resolve(html):
    page = Page(html)
    assert [name for name, times in Counter(page.ids).items() if times > 1] == []
    assert {r[1:] for r in page.references if r.startswith("#")} <= set(page.ids)


def test_the_same_data_gives_the_same_bytes(make, html):
    assert render(make()) == html


def test_every_estimator_is_in_the_leaderboard_in_order_and_the_first_is_marked(make, html):
    data = make()
    rows = re.findall(r'<tr( class="best")?>\s*<th scope="row">.*?</i>([a-z_]+)</th>', board(html))
    lds = data.scores[data.scores["metric"] == "lds"].sort_values("value", ascending=False)
    assert [name for _, name in rows] == list(lds["estimator"])
    assert [bool(mark) for mark, _ in rows] == [True] + [False] * (len(rows) - 1)


def test_the_numbers_are_those_of_the_scores(make, html):
    data = make()
    page = Page(html).text
    row = data.scores[(data.scores["estimator"] == "influence") & (data.scores["metric"] == "lds")].iloc[0]
    assert f"{row.value:.3f}" in page
    assert f"{row.low:.3f} to {row.high:.3f}" in page
    assert f"{row.share:.0%}" in page
    assert "correlate 0.812 (0.790 to 0.830)" in page
    assert "predicts 0.818" in page or "predicts 0.817" in page
    assert "518" in page, "models trained, over all designs"


def test_every_image_has_alternative_text_and_every_figure_a_description(html):
    page = Page(html)
    assert len(page.images) > 20
    assert all(image["alt"] for image in page.images)
    assert html.count('role="img"') == html.count('role="img" aria-label="') == 4 + 6


def test_what_users_write_is_escaped(only):
    evil = "<script>alert(1)</script>"
    data = only("datamodel")
    scores = data.scores.assign(estimator=evil)
    html = render(
        only(
            "datamodel",
            title=evil,
            description=evil,
            config_yaml=evil,
            failures=(evil,),
            versions={evil: evil},
            scores=scores,
            models={evil: 3},
            predicted={evil: data.predicted["datamodel"]},
            per_query_lds={evil: data.per_query_lds["datamodel"]},
            attributions={evil: data.attributions["datamodel"]},
            families={evil: "other"},
            label=lambda source, index: evil,
            show=lambda source, index: evil,
        )
    )
    assert "<script" not in html
    assert Page(html).tags["script"] == 0
    assert Page(html).text.count(evil) > 20


def test_an_estimator_name_is_never_read_as_mathematics(only):
    data = only("datamodel")
    name = "a$\\frac{$b_c^"
    renamed = {field: {name: getattr(data, field)["datamodel"]} for field in ("predicted", "per_query_lds", "models")}
    html = render(only("datamodel", scores=data.scores.assign(estimator=name), attributions={}, **renamed))
    assert f"predicted by {name}" in html


def test_before_anything_is_scored_the_page_tells_the_runs(only):
    html = render(only(show=None))
    page = Page(html).text
    assert "Nothing is scored" in page
    assert "Health of the sweep" in page
    assert "398" in page
    assert html.count('role="img"') == 0


def test_one_estimator_is_enough(only):
    page = Page(render(only("trak")))
    assert "trak" in page.text
    assert page.images


def test_without_a_gradient_based_estimator_the_two_best_stand_side_by_side(only):
    page = render(only("datamodel", "difference_in_means", "random"))
    assert re.findall(r'<div class="wing">\s*<h3>(\w+)', page)[:2] == ["datamodel", "difference_in_means"]


def test_the_best_of_each_family_stand_side_by_side(html):
    wings = re.findall(r'<div class="wing">\s*<h3>(\w+)', html)
    assert wings[:2] == ["datamodel", "influence"]


def test_the_gallery_shows_the_largest_and_smallest_attributions_of_the_query(only):
    data = only("datamodel")
    html = render(data)
    query = int(np.argmax(data.per_query_lds["datamodel"]))
    case = html.split('<article class="case">')[1]
    assert f"Query {query}" in case
    shown = [int(i) for i in re.findall(r'alt="training example (\d+), label', case)]
    order = np.argsort(data.attributions["datamodel"][:, query])
    assert shown == [*order[::-1][:6], *order[:6]]


def test_queries_are_shown_by_their_place_in_their_source(only):
    asked: list[tuple[str, int]] = []

    def show(source: str, index: int) -> str:
        asked.append((source, index))
        return "text"

    data = only("datamodel", show=show, queries=Queries("train", tuple(range(20, 32))))
    page = Page(render(data)).text
    best = 20 + int(np.argmax(data.per_query_lds["datamodel"]))
    assert asked[0] == ("train", best)
    assert f"Training example {best}" in page


def test_of_a_loss_the_negative_end_is_the_helpful_one(only):
    data = only("datamodel")
    html = render(only("datamodel", measure="loss", scores=data.scores.assign(measure="loss")))
    first = html.split('<div class="row up">')[1].split('<div class="row')[0]
    assert "most helpful" in first
    assert "\u2212" in first
    assert "+" not in re.sub(r"base64,[^\"]*", "", first)


def test_an_unknown_measure_is_not_called_good_or_bad(only):
    html = render(only("datamodel", measure="wind", scores=only("datamodel").scores.assign(measure="wind")))
    assert "raise wind most" in html
    assert "helpful" not in html


def test_a_task_that_shows_nothing_is_said_so_in_one_line(only):
    page = Page(render(only("datamodel", show=None, label=None)))
    assert "does not say how to show its examples" in page.text
    assert page.images == []


def test_texts_are_shown_as_texts(only):
    page = Page(render(only("datamodel", show=lambda source, index: f"a & b of {source} {index}", label=None)))
    assert page.images == []
    assert "a & b of task" in page.text


def test_colour_images_and_large_ones(only):
    page = Page(render(only("datamodel", show=lambda source, index: np.zeros((300, 400, 3), np.uint8))))
    assert page.images
    assert all("class" not in image for image in page.images), "a large picture is not pixelated"


def test_a_picture_of_the_wrong_type_is_refused_with_its_place(only):
    with pytest.raises(DataError, match=r"picture of task example \d+ is float64 \(8, 8\), expected uint8"):
        render(only("datamodel", show=lambda source, index: np.zeros((8, 8))))


def test_rows_say_what_they_can_be_told_from(make, html):
    assert "not told apart" not in html
    scores = make().scores.assign(behind_best=0.12, behind_best_low=0.05, behind_best_high=0.19)
    page = render(make(scores=scores.assign(ahead_of_next=0.01, ahead_of_next_low=-0.02, ahead_of_next_high=0.04)))
    assert page.count('<td class="n">0.120<br><span class="quiet">0.050 to 0.190</span>') == 7, "told apart: no mark"
    assert page.count('<td class="n">≈ 0.010<br><span class="quiet">−0.020 to 0.040</span>') == 7
    assert "not told apart" in page


def test_where_the_ceiling_reaches_zero_the_page_says_so_and_shows_no_share(make):
    scores = make().scores.assign(ceiling_low=0.0, share=math.nan, share_low=math.nan, share_high=math.nan)
    page = render(make(scores=scores, per_query_ceiling=np.full(12, np.nan)))
    assert "There was nothing to find" in page
    assert "margin: nothing to find." in page
    assert 'class="ceiling"' not in page
    assert "of what the noise of training" not in page


def test_without_a_ceiling_none_is_drawn(make):
    data = make(scores=make().scores.assign(ceiling=np.nan), per_query_ceiling=np.full(12, np.nan))
    html = render(data)
    assert 'class="ceiling"' not in html
    assert "nan" not in Page(html).text.lower().split()
    assert "ceiling 0" not in html


def test_an_lds_that_is_unknown_comes_last_without_a_bar(make):
    scores = make().scores.copy()
    where = (scores["estimator"] == "datamodel") & (scores["metric"] == "lds")
    scores.loc[where, ["value", "low", "high"]] = np.nan
    lines = board(render(make(scores=scores))).split("<tr")[1:]
    assert "datamodel" in lines[-1]
    assert "<circle" not in lines[-1]


def test_scores_below_zero_only(only):
    data = only("random")
    scores = data.scores.assign(value=-0.2, low=-0.3, high=-0.1, ceiling=np.nan)
    assert "\u22120.200" in render(only("random", scores=scores, models={"random": 1}))


def test_scores_of_another_measure_are_not_mixed_in(make):
    scores = make().scores.copy()
    scores.loc[scores["estimator"] == "tracin", "measure"] = "loss"
    assert "tracin" not in board(render(make(scores=scores)))


def test_a_sweep_without_failures_says_so(only):
    designs = tuple(d for d in only("datamodel").designs if not d.failed)
    page = Page(render(only("datamodel", failures=(), designs=designs))).text
    assert "No run failed." in page


def test_failures_left_out_are_counted(only):
    assert "1 of 2 shown" in Page(render(only("datamodel", failures=("fit row 3: no",)))).text


@pytest.mark.parametrize("field", ["per_query_ceiling", "actual"])
def test_arrays_that_do_not_fit_are_refused_by_name(make, field):
    with pytest.raises(DataError, match=field):
        make(**{field: np.zeros((3, 3))})


def test_a_score_table_without_its_columns_is_refused(make):
    with pytest.raises(DataError, match="lacks the columns low, high"):
        make(scores=make().scores.drop(columns=["low", "high"]))
