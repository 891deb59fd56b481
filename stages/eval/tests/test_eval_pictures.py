"""The pictures of a report: the same content gives the same bytes, whatever names and settings there are."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread
from pipeline_eval.breakdown import Breakdown, Row
from pipeline_eval.pictures import draw_breakdown, draw_systems

BLUE, VERMILION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def scores(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(40)


def found(*rows: tuple[str, float, tuple[float, float] | None], a: str = "base") -> Breakdown:
    made = [Row("query_type", group, 12 if ci95 else 3, 0.5, 0.5 + delta, delta, ci95) for group, delta, ci95 in rows]
    return Breakdown("set", a, "finetuned", "NDCG@10", 24, made, [], [])


def pixels(path, colour) -> int:
    """How many pixels of a PNG have just this colour."""
    image = (imread(path)[..., :3] * 255).round().astype(int)
    return int((image == colour).all(-1).sum())


def test_the_systems_have_a_bar_each_and_the_same_scores_the_same_bytes(tmp_path):
    every = {name: scores(seed) for seed, name in enumerate(("BM25", "base", "tuned$_{1}$ <x>"))}
    one = draw_systems(tmp_path / "one.png", every, "set", "NDCG@10")
    with mpl.rc_context({"lines.linewidth": 9, "axes.facecolor": "black"}):  # a person's own settings
        two = draw_systems(tmp_path / "two.png", every, "set", "NDCG@10")
    assert one.read_bytes() == two.read_bytes()
    fewer = draw_systems(tmp_path / "fewer.png", {"base": every["base"]}, "set", "NDCG@10")
    assert imread(fewer).shape[0] < imread(one).shape[0]


def test_only_a_group_whose_interval_leaves_out_0_has_a_colour(tmp_path):
    def colours(*rows):
        path = draw_breakdown(tmp_path / "groups.png", [found(*rows)], {})
        return pixels(path, BLUE) > 20, pixels(path, VERMILION) > 20

    unclear = ("unclear", 0.1, (-0.1, 0.3))
    assert colours(unclear, ("few", 0.4, None)) == (False, False)
    assert colours(unclear, ("gain", 0.2, (0.1, 0.3))) == (True, False)
    assert colours(unclear, ("loss", -0.2, (-0.3, -0.1))) == (False, True)


@pytest.mark.parametrize("pairs", [1, 2])
def test_every_pair_has_a_panel_and_odd_names_do_no_harm(tmp_path, pairs):
    rows = (("a$b_{\\frac" + "long/" * 20, 0.1, (0.0, 0.2)), ("line\nbreak", 0.1, None))
    every = [found(*rows, a=name) for name in ("base", "retriever")[:pairs]]
    path = draw_breakdown(tmp_path / "groups.png", every, {"finetuned": "tuned"})
    assert imread(path).shape[1] == 100 * (4 + 4 * pairs)
