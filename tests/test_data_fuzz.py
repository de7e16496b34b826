"""The short form of the campaign on data; `python -m campaign.data_fuzz` is the long one."""

import pytest
from campaign import data_fuzz


@pytest.mark.parametrize("kind", data_fuzz.KINDS)
def test_damaged_data_are_refused_or_the_same(kind):
    counts = data_fuzz.fuzz(kind, cases=60)
    assert counts["traceback"] == counts["wrong"] == 0, counts
    assert counts["refused"] > 5, counts
    assert sum(counts.values()) == 60


def test_damaged_prepared_photographs_are_refused_or_the_same():
    counts = data_fuzz.fuzz_prepared(cases=100)
    assert counts["traceback"] == counts["wrong"] == 0, counts
    assert counts["refused"] > 20, counts


def test_the_campaign_would_notice_silent_damage(monkeypatch):
    """Without the checksums of what is prepared."""
    monkeypatch.setattr("supervised_reptile.datasets.images.store._sha256", lambda path: "x")
    assert data_fuzz.fuzz_prepared(cases=100)["wrong"] > 0
