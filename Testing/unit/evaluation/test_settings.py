import pytest

from FoundationSegLib.core.errors import InputError
from FoundationSegLib.evaluation.settings import ProtocolSettings, require_protocol
from Testing.unit.fakes import fake_card


@pytest.mark.parametrize(("protocol", "steps", "click_steps"), [("box", 1, 0), ("clicks", 5, 5), ("box+clicks", 6, 5)])
def test_steps_are_the_box_and_the_clicks(protocol, steps, click_steps):
    settings = ProtocolSettings(protocol)
    assert (settings.steps, settings.click_steps) == (steps, click_steps)


CLICKABLE = {"prompts": ["point", "box"], "negative": ["point"]}


@pytest.mark.parametrize(
    ("card", "protocol", "told"),
    [
        ({"prompts": ["box"]}, "clicks", "boxes, but no clicks for and against: use --protocol box"),
        ({"prompts": ["box"]}, "box+clicks", "boxes, but no clicks for and against: use --protocol box"),
        ({"prompts": ["box", "point"]}, "clicks", "no clicks for and against"),
        ({"prompts": ["point"], "negative": ["point"]}, "box", "clicks, but no boxes: use --protocol clicks"),
        ({"prompts": ["text"]}, "box", "neither boxes nor clicks for and against, and cannot be evaluated"),
        ({"prompts": ["box"]}, "box", None),
        ({"prompts": ["point"], "negative": ["point"]}, "clicks", None),
        (CLICKABLE, "clicks", None),
        (CLICKABLE, "box+clicks", None),
    ],
)
def test_a_model_must_understand_what_a_protocol_gives(card, protocol, told):
    if told is None:
        require_protocol(fake_card(**card), protocol)
        return
    with pytest.raises(InputError, match=told):
        require_protocol(fake_card(**card), protocol)
