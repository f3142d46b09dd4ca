import pytest

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.errors import PromptError
from FoundationSegLib.prompts.capabilities import asks_for_everything, segments_by_name
from FoundationSegLib.prompts.kinds import ClassPrompt, SegmentPrompts, TextPrompt

VISTA3D, VOXTELL = (read_catalogue()[name] for name in ("vista3d", "voxtell"))


def test_each_class_and_each_text_is_a_segment_of_its_name():
    assert segments_by_name(VISTA3D, ["Liver", "kidneys"], ["a cyst "]) == (
        SegmentPrompts("liver", (ClassPrompt("liver"),)),
        SegmentPrompts("left kidney", (ClassPrompt("left kidney"),)),
        SegmentPrompts("right kidney", (ClassPrompt("right kidney"),)),
        SegmentPrompts("a cyst", (TextPrompt("a cyst "),)),
    )
    assert len(segments_by_name(VISTA3D, ["everything"])) == 117


def test_a_model_without_classes_takes_their_names_as_they_are():
    named = segments_by_name(VOXTELL, ["liver", "12"])
    assert [one.prompts[0] for one in named] == [ClassPrompt("liver"), ClassPrompt("12")]


@pytest.mark.parametrize(
    ("card", "classes", "texts", "message"),
    [
        (VISTA3D, ["livr"], [], "no class called 'livr'"),
        (VISTA3D, ["liver"], ["liver"], "'liver' is asked for twice"),
        (VISTA3D, [], ["a", "a"], "'a' is asked for twice"),
        (VOXTELL, [], [" "], "is empty"),
        (VOXTELL, ["everything"], [], "name them one by one"),
    ],
)
def test_what_cannot_be_meant_is_told(card, classes, texts, message):
    with pytest.raises(PromptError, match=message):
        segments_by_name(card, classes, texts)


def test_everything_is_told_from_names():
    assert asks_for_everything(["liver", " Everything "])
    assert not asks_for_everything(["liver", "all"])
