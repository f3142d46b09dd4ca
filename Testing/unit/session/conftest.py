"""A session on a small volume, and what it tells."""

import pytest

from Testing.unit.session.session_cases import make_session, segment_of


@pytest.fixture
def session():
    return make_session()[0]


@pytest.fixture
def segment(session):
    return segment_of(session)


@pytest.fixture
def told(session):
    outcomes = []
    session.on_outcome = outcomes.append
    return outcomes
