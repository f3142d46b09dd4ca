"""Counts of answers and images: only if wanted, nothing but numbers, and images that change are noticed."""

from datetime import date

import numpy as np
import pytest

from FoundationSegLib import monitoring
from FoundationSegLib.errors import InputError

MONDAY = date(2026, 11, 30)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(monitoring.MONITORING_VARIABLE, str(tmp_path / "counts"))
    return tmp_path / "counts"


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).tolist()


def test_nothing_is_kept_before_it_is_wanted_and_all_of_it_goes(folder):
    monitoring.count_answer("a", "accepted")
    monitoring.count_image("a", [1.0, 0.0])
    assert not folder.exists() and not monitoring.is_counting()
    monitoring.set_counting(True)
    assert monitoring.is_counting()
    for verdict in ("accepted", "accepted", "rejected"):
        monitoring.count_answer("a", verdict, MONDAY)
    monitoring.set_counting(False)
    assert not monitoring.is_counting()
    monitoring.count_answer("a", "accepted", MONDAY)
    assert monitoring.read_counts().answers == {"a": {"2026-W49": (2, 0, 1)}}
    page = monitoring.write_overview().read_text(encoding="utf-8")
    assert "2026-W49" in page and "2 of 3" in page and "<script" not in page and "http" not in page
    monitoring.delete_counts()
    assert not list(folder.iterdir()) and not monitoring.has_counts()


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_other_images_are_told_from_like_ones(shift):
    generator, drift = np.random.default_rng(2), monitoring.ImageDrift()
    first, later = generator.normal(1, 0.4, (40, 16)), generator.normal(1, 0.4, (60, 16))
    later[:, 0] += 4 * shift
    for vector in unit(first) + unit(later):
        drift = drift.with_image(vector, "2026-W49")
    images, beyond, _ = drift.weeks["2026-W49"]
    assert images == 60 and drift.vectors == () and len(drift.mean) == 16
    assert (monitoring.chance_of(beyond, images) < 0.01) == bool(shift)
    page = monitoring.overview_page(monitoring.Counts(True, {}, {"a": drift}))
    assert ("differ from the first" in page) == bool(shift) and ("as before" in page) != bool(shift)


def test_the_chance_of_far_images_is_the_binomial_tail():
    draws = np.random.default_rng(0).binomial(30, 0.05, 100_000)
    for beyond in (0, 1, 3, 5):
        assert monitoring.chance_of(beyond, 30) == pytest.approx((draws >= beyond).mean(), abs=0.01)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 9}', '{"version": 1, "is_counting": "yes"}'])
def test_damaged_counts_are_said_and_can_be_deleted(folder, text):
    folder.mkdir()
    (folder / "counts.json").write_text(text)
    with pytest.raises(InputError):
        monitoring.read_counts()
    assert not monitoring.is_counting() and (folder / "counts.json").read_text() == text
    monitoring.delete_counts()
    assert monitoring.read_counts() == monitoring.Counts()
