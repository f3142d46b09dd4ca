import numpy as np
import pytest

from FoundationSegLib.errors import InputError, PromptError
from FoundationSegLib.prompts.kinds import BoxPrompt, Polarity
from FoundationSegLib.session.segment_store import Confirmation
from FoundationSegLib.session.steps import AcceptStep, RejectStep
from Testing.unit.session.session_cases import CHOICES, VOLUMES, mask_of, point, ras


class TestAskingFirst:
    def test_what_would_delete_much_waits(self, session, segment, told):
        segment.add(BoxPrompt((ras(3, 1, 1), ras(3, 8, 9))))
        before, steps = mask_of(segment), segment.steps
        segment.add(BoxPrompt((ras(3, 2, 1), ras(3, 8, 9)), Polarity.NEGATIVE))
        assert session.confirmation == told[-1] and isinstance(told[-1], Confirmation)
        assert round(told[-1].lost_share, 3) == 0.875 and not told[-1].by_hand
        assert np.array_equal(mask_of(segment), before)
        assert session.discard() and session.confirmation is None and segment.steps == steps
        segment.add(BoxPrompt((ras(3, 2, 1), ras(3, 8, 9)), Polarity.NEGATIVE))
        session.confirm()
        assert mask_of(segment).sum() == 9 and session.confirmation is None

    def test_the_share_is_chosen(self, session, segment):
        segment.add(BoxPrompt((ras(3, 1, 1), ras(3, 8, 9))))
        session.options.ask_above = 0.9
        segment.add(BoxPrompt((ras(3, 2, 1), ras(3, 8, 9)), Polarity.NEGATIVE))
        assert mask_of(segment).sum() == 9

    def test_taking_a_prompt_back_is_meant(self, session, segment):
        (key,) = segment.add(point(3))
        segment.remove(key)
        assert not mask_of(segment).any()

    def test_moving_a_prompt_is_meant(self, session, segment, told):
        (key,) = segment.add(point(3))
        segment.move(key, point(5))
        assert session.confirmation is None and mask_of(segment)[5].sum() == 25 and not mask_of(segment)[3].any()
        mask = mask_of(segment)
        mask[5, 4, 5] = False
        session.store.put(segment.segment_id, mask)
        segment.move(key, point(5, 5, 5))
        assert session.confirmation.by_hand == 1, "what was erased by hand would come back"

    def test_what_was_drawn_by_hand_is_asked_for(self, session, segment, told):
        segment.add(point(3))
        mask = mask_of(segment)
        mask[3, 2, 3] = False
        session.store.put(segment.segment_id, mask)
        segment.add(point(3, 4, 5))
        assert told[-1].by_hand == 1 and told[-1].lost_share == 0
        assert not mask_of(segment)[3, 2, 3]
        session.confirm()
        assert mask_of(segment)[3, 2, 3]

    def test_few_voxels_of_a_large_correction_are_not_asked_for(self, session, segment):
        segment.add(point(3))
        mask = mask_of(segment)
        mask[5:7], mask[3, 2, 3] = True, False  # as smoothing does all along the border
        session.store.put(segment.segment_id, mask)
        segment.add(point(3, 4, 5))
        assert session.confirmation is None and mask_of(segment)[3, 2, 3]

    def test_another_model_is_asked_about_what_was_drawn_by_hand(self, session, segment, told):
        segment.add(point(3))
        mask = mask_of(segment)
        mask[3, 4, 5], mask[0, 0, 0] = False, True
        session.store.put(segment.segment_id, mask)
        segment.ask_again(VOLUMES)
        assert session.confirmation == told[-1] and told[-1].by_hand == 2
        assert np.array_equal(mask_of(segment), mask)
        session.confirm()
        assert mask_of(segment).sum() == 125 and session.undo(segment.segment_id)
        assert np.array_equal(mask_of(segment), mask)

    def test_a_prompt_more_is_asked_with_what_is_pending(self, session, segment):
        segment.add(BoxPrompt((ras(3, 1, 1), ras(3, 8, 9))))
        segment.add(BoxPrompt((ras(3, 2, 1), ras(3, 8, 9)), Polarity.NEGATIVE))
        segment.add(BoxPrompt((ras(3, 2, 1), ras(3, 8, 9))))
        assert session.confirmation is None and mask_of(segment).sum() == 72

    def test_somebody_paints_before_it_is_confirmed(self, session, segment):
        segment.add(BoxPrompt((ras(3, 1, 1), ras(3, 8, 9))))
        segment.add(BoxPrompt((ras(3, 2, 1), ras(3, 8, 9)), Polarity.NEGATIVE))
        mask = mask_of(segment)
        mask[6] = True
        session.store.put(segment.segment_id, mask)
        session.confirm()
        assert mask_of(segment)[6].all()
        assert session.confirmation is None or not session.confirmation.by_hand


class TestAcceptAndReject:
    def test_a_rejected_change_is_taken_back_and_kept_in_mind(self, session, segment):
        segment.add(point(3))
        before = mask_of(segment)
        segment.add(point(5))
        session.reject(segment.segment_id)
        assert np.array_equal(mask_of(segment), before) and list(segment.prompts) == ["1"]
        assert isinstance(segment.steps[-1], RejectStep)
        assert session.undo(segment.segment_id) and mask_of(segment).sum() == 50 and len(segment.prompts) == 2
        assert session.redo(segment.segment_id) and np.array_equal(mask_of(segment), before)

    def test_keys_of_rejected_prompts_do_not_come_again(self, session, segment):
        segment.add(point(3))
        session.reject(segment.segment_id)
        assert segment.add(point(5)) == ("2",)

    def test_what_was_accepted_cannot_be_rejected_but_undone(self, session, segment):
        segment.add(point(3))
        session.accept(segment.segment_id)
        assert isinstance(segment.steps[-1], AcceptStep)
        with pytest.raises(InputError, match="accepted"):
            session.reject(segment.segment_id)
        assert session.undo(segment.segment_id) and session.undo(segment.segment_id)
        assert not mask_of(segment).any()

    def test_what_waits_is_rejected_first(self, session, segment):
        segment.add(point(3))
        session.client.is_slow = True
        segment.add(point(5))
        session.reject(segment.segment_id)
        assert mask_of(segment).sum() == 25 and list(segment.prompts) == ["1"]

    def test_nothing_to_reject(self, session, segment):
        with pytest.raises(InputError, match="no change to reject"):
            session.reject(segment.segment_id)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_prompt_outside_the_image_is_refused_at_once(session, segment, choice):
    """Models of volumes, too: another model may be asked about its slice later."""
    session.options.choice = choice
    (key,) = segment.add(point(3))
    steps = segment.steps
    for call in (lambda: segment.add(point(50)), lambda: segment.move(key, point(50))):
        with pytest.raises(PromptError, match="outside"):
            call()
    assert segment.steps == steps and not session.queued_targets()
