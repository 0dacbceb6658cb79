"""Gradient-based estimators on one reference model, against the libraries that a user would otherwise pick.

    python benchmarks/gradients.py [--json FILE] [--case ekfac tracin trak] [--n 5000] [--t 500] [--rounds 3] [--threads 2]

The task is the literature's MLP 784-128-64-10 on MNIST (`mnist_t10k.npz`, or what $COUNTERFACTORY_DATA has; without it on random
images, which is said). Both sides see the same trained model, in float32, with the same threads, one after the other in every
round; the median of the rounds' ratios counts. Seconds are those of everything between the trained model and the (n, t) scores.

- `ekfac`: against kronfluence (strategy ekfac), both damped by a tenth of each layer's mean eigenvalue.
- `tracin`: against dattri, one checkpoint, no projection.
- `trak`: against traker at 2,048 dimensions, ours by `projection: factored`; `trak, dense` is ours by independent entries, too.
- `logra-store`: LoGra's answer to one new query from the gradients that it keeps on the disk, against its first pass without
  them, training examples and t queries together; the ratio says how often the one goes into the other. Keeping them takes longer,
  once, as a line says.
- `influence`: conjugate gradients with Nystroem's preconditioner, on a model trained as long as its recipe says, against nobody:
  `theirs` is the arithmetic of 10 products a query, 8 n p operations each, at this machine's peak of a matrix product, and
  `agree` says whether a true relative residual of 1e-2 was reached by that many products, each within 1.5 times its arithmetic.
  20 of the t queries are solved for, and `ours` is the time of all t. Times are the processor's.

`rank r` is the mean over queries of the rank correlation of the two sides' scores, `agree` whether they are as near as they
should be: above .999 where both compute the same number. EK-FAC draws targets, and two draws differ (a line says how much, for
ours): there the two sides must agree by .99 with the true targets, where nothing is drawn. Two random projections differ, too:
for TRAK it is the rank correlation with scores from unprojected gradients on 1,000 examples that must not be lower than theirs.

`--growth FILE` measures instead how the time of `ekfac`, `tracin`, `trak` and `logra` grows with n, t and p, and draws it.

    pip install --no-deps kronfluence traker dattri einconv opt_einsum einops
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from gradients_growth import draw_growth
from gradients_influence import influence
from gradients_setting import Row, Setting, setting
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from estimators.gradient_based.new_queries import new_queries
from estimators.registry import find
from orchestrator.attribution.gradients import GradientsToAnswerFrom, SweepGradients
from orchestrator.store.paths import SweepPaths
from orchestrator.store.plain_files import files_below

DIMENSIONS = 2048
UNPROJECTED = 1000
"""Examples whose exact TRAK scores the two projections are held against."""

warnings.filterwarnings("ignore")


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log(p / (1 - p)) of the labels."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    return own - logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)


def kronfluence_ekfac(given: Setting, empirical: bool = False) -> np.ndarray:
    """Return the scores (n, t) of kronfluence's EK-FAC; its measurement is minus the margin, so that signs are ours."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class Margins(Task):
        def compute_train_loss(self, batch, model, sample=False):
            images, labels = batch
            logits = model(images)
            if sample:
                labels = torch.multinomial(logits.detach().softmax(-1), 1).flatten()
            return F.cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch, model):
            return -margins(model(batch[0]), batch[1]).sum()

    task = Margins()
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer(
            analysis_name="gradients",
            model=prepare_model(given.module, task),
            task=task,
            cpu=True,
            output_dir=folder,
            disable_tqdm=True,
        )
        analyzer.fit_all_factors(
            factors_name="factors",
            dataset=given.train,
            per_device_batch_size=256,
            factor_args=FactorArguments(strategy="ekfac", use_empirical_fisher=empirical),
            overwrite_output_dir=True,
        )
        analyzer.compute_pairwise_scores(
            scores_name="scores",
            factors_name="factors",
            query_dataset=given.queries,
            train_dataset=given.train,
            per_device_query_batch_size=50,
            per_device_train_batch_size=256,
            score_args=ScoreArguments(damping_factor=None),
            overwrite_output_dir=True,
        )
        return analyzer.load_pairwise_scores("scores")["all_modules"].numpy().T


def dattri_tracin(given: Setting) -> np.ndarray:
    """Return the scores (n, t) of dattri's TracIn with one checkpoint of weight 1."""
    from dattri.algorithm.tracin import TracInAttributor
    from dattri.task import AttributionTask

    module = given.module

    def loss(parameters, data):
        images, labels = data
        logits = torch.func.functional_call(module, parameters, (images.unsqueeze(0),))
        return F.cross_entropy(logits, labels.unsqueeze(0))

    def target(parameters, data):
        images, labels = data
        logits = torch.func.functional_call(module, parameters, (images.unsqueeze(0),))
        return -margins(logits, labels.unsqueeze(0)).squeeze(0)

    task = AttributionTask(loss, module, module.state_dict(), target_func=target)
    attributor = TracInAttributor(task, weight_list=torch.ones(1), normalized_grad=False)
    attributor.projector_kwargs = None
    loaders = (DataLoader(data, batch_size=500) for data in (given.train, given.queries))
    return attributor.attribute(*loaders).numpy()


def traker_trak(given: Setting) -> np.ndarray:
    """Return the scores (n, t) of traker's TRAK."""
    from trak import TRAKer
    from trak.projectors import BasicProjector, ProjectionType

    module = given.module
    p = sum(parameter.numel() for parameter in module.parameters())
    with tempfile.TemporaryDirectory() as folder:
        projector = BasicProjector(
            grad_dim=p,
            proj_dim=DIMENSIONS,
            seed=0,
            proj_type=ProjectionType.rademacher,
            device="cpu",
            dtype=torch.float32,
        )
        traker = TRAKer(
            module,
            "image_classification",
            train_set_size=len(given.train),
            save_dir=folder,
            device="cpu",
            use_half_precision=False,
            proj_dim=DIMENSIONS,
            projector=projector,
            logging_level=logging.ERROR,
        )
        state = module.state_dict()
        traker.load_checkpoint(state, model_id=0)
        for batch in DataLoader(given.train, batch_size=500):
            traker.featurize(batch, num_samples=len(batch[0]))
        traker.finalize_features()
        traker.start_scoring_checkpoint("scores", state, 0, num_targets=len(given.queries))
        for batch in DataLoader(given.queries, batch_size=500):
            traker.score(batch, num_samples=len(batch[0]))
        return np.array(traker.finalize_scores("scores"))


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean over queries of Spearman's correlation over examples."""
    ranks = [rankdata(values, axis=0) for values in (one, other)]
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(ranks[0].T, ranks[1].T, strict=True)]))


def compared(
    case: str, other: str, ours: Callable[[], np.ndarray], theirs: Callable[[], np.ndarray], rounds: int
) -> tuple[Row, np.ndarray, np.ndarray]:
    """Alternate the sides, and return their median seconds, the median of the ratios, and what they found."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        found, each = [], []
        for side in (ours, theirs):
            clock = time.perf_counter()
            found.append(side())
            each.append(time.perf_counter() - clock)
        times.append((each[0], each[1]))
    mine, others = (statistics.median(one[side] for one in times) for side in (0, 1))
    ratio = statistics.median(other_time / own for own, other_time in times)
    return Row(case, other, mine, others, ratio, rank_correlation(*found), True), found[0], found[1]


def marked(row: Row, agree: bool) -> Row:
    return Row(**{**asdict(row), "agree": agree})


def ekfac(given: Setting, rounds: int) -> list[Row]:
    def ours(seed: int = 0, fisher: str = "sampled") -> np.ndarray:
        drawn = replace(given, evidence=replace(given.evidence, seed=seed))
        return drawn.ours("ekfac", damping="mean_eigenvalue", weight_decay=False, fisher=fisher)

    row, found, _ = compared("ekfac", "kronfluence", ours, lambda: kronfluence_ekfac(given), rounds)
    between_draws = rank_correlation(found, ours(seed=1))
    with_theirs = rank_correlation(ours(fisher="empirical"), kronfluence_ekfac(given, empirical=True))
    print(
        f"ekfac: rank correlation of two draws of our targets {between_draws:.3f}; at the true ones {with_theirs:.4f}"
    )
    return [marked(row, with_theirs > 0.99)]


def tracin(given: Setting, rounds: int) -> list[Row]:
    row, _, _ = compared("tracin", "dattri", lambda: given.ours("tracin"), lambda: dattri_tracin(given), rounds)
    return [marked(row, row.correlation > 0.999)]


def trak(given: Setting, rounds: int) -> list[Row]:
    few = setting(min(UNPROJECTED, len(given.train)), min(100, len(given.queries)))
    exact = few.ours("trak", project_dim=None, damping=1e-6, memory_gb=8)
    with_exact = rank_correlation(traker_trak(few), exact)
    rows = []
    for case, projection in (("trak", "factored"), ("trak, dense", "rademacher")):
        options = {"project_dim": DIMENSIONS, "projection": projection, "damping": 1e-6}
        row, _, _ = compared(
            case, "traker", lambda options=options: given.ours("trak", **options), lambda: traker_trak(given), rounds
        )
        own = rank_correlation(few.ours("trak", **options), exact)
        print(f"{case}: rank correlation with unprojected gradients {own:.3f}, traker's {with_exact:.3f}")
        rows.append(marked(row, own > with_exact - 0.02))
    return rows


def logra_store(given: Setting, rounds: int) -> list[Row]:
    estimator, task = find("logra")(models=1, store=True), given.task
    with tempfile.TemporaryDirectory() as folder:
        paths = SweepPaths(Path(folder))
        keeping = SweepGradients(paths, "logra", lambda: "", print, again=True)
        clock = time.perf_counter()
        estimator.attribute(replace(given.evidence, gradients=keeping))
        seconds = time.perf_counter() - clock
        size = sum(file.stat().st_size for file in files_below(paths.gradients))
        kept = replace(given.evidence, gradients=GradientsToAnswerFrom(paths, "logra"))
        query, many = (task.examples("task").read(torch.arange(count)) for count in (1, min(100, task.t)))

        def first_query() -> np.ndarray:
            return new_queries(estimator, kept, query).values()

        def first_pass() -> np.ndarray:
            return given.ours("logra")[:, :1]

        row, found, expected = compared("logra-store", "first pass", first_query, first_pass, rounds)
        clock = time.perf_counter()
        asked = new_queries(estimator, kept, many)
        asked.values()
        each = (time.perf_counter() - clock) / asked.q
    print(
        f"logra-store: the pass that keeps {size / 2**20:,.0f} MiB takes {seconds:.2f} s; a query is {1 / row.ratio:.2%} of the "
        f"first pass, one of {asked.q} together {each / row.theirs:.3%}"
    )
    return [marked(row, np.allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()))]


CASES: dict[str, Callable[[Setting, int], list[Row]]] = {
    "ekfac": ekfac,
    "tracin": tracin,
    "trak": trak,
    "logra-store": logra_store,
    "influence": influence,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--t", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--growth", type=Path, metavar="FILE", help="draw docs/gradients-growth.svg")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.growth:
        draw_growth(asked.growth, asked.rounds)
        return
    given = setting(asked.n, asked.t)
    print(f"{'case':<16}{'other':<14}{'ours s':>9}{'theirs s':>9}{'ratio':>8}{'rank r':>9}  agree")
    rows = []
    for case in asked.case:
        for row in CASES[case](given, asked.rounds):
            rows.append(row)
            print(
                f"{row.case:<16}{row.other:<14}{row.ours:>9.3f}{row.theirs:>9.2f}{row.ratio:>8.2f}"
                f"{row.correlation:>9.4f}  {row.agree}",
                flush=True,
            )
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    sys.exit(0 if all(row.agree for row in rows) else 1)


if __name__ == "__main__":
    main()
