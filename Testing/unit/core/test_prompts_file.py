import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from FoundationSegLib.core.errors import InputError, OutputError, PromptError
from FoundationSegLib.core.prompts import PointPrompt, PromptSet, SegmentPrompts
from FoundationSegLib.core.prompts_file import read_prompts, write_prompts
from Testing.unit.core.strategies import segments

PROMPTS = PromptSet((SegmentPrompts("Leber 肝臓", (PointPrompt((0.1, 1e-300, -0.0)),)),))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(segments, min_size=1, max_size=3, unique_by=lambda segment: segment.name))
def test_what_is_written_is_read(tmp_path, segments):
    prompts = PromptSet(tuple(segments))
    write_prompts(tmp_path / "prompts.json", prompts)
    assert read_prompts(tmp_path / "prompts.json") == prompts


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text("old")
    write_prompts(path, PROMPTS)
    assert read_prompts(path) == PROMPTS
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_told_and_leaves_nothing(tmp_path):
    (tmp_path / "prompts.json").mkdir()
    with pytest.raises(OutputError, match=r"prompts\.json: cannot be written"):
        write_prompts(tmp_path / "prompts.json", PROMPTS)
    with pytest.raises(OutputError):
        write_prompts(tmp_path / "missing" / "prompts.json", PROMPTS)
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.json"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is no JSON"),
        ('{"version": 1, "version": 1}', "stands twice"),
        ("{}", "version: missing"),
        ('{"version": ' + "9" * 5000 + ', "segments": []}', "must be 1"),
    ],
)
def test_a_malformed_file_is_told(tmp_path, text, complaint):
    (tmp_path / "prompts.json").write_text(text)
    with pytest.raises(PromptError, match=complaint):
        read_prompts(tmp_path / "prompts.json")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_prompts(tmp_path / "prompts.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe{\x00")
    with pytest.raises(InputError, match="not a text file"):
        read_prompts(tmp_path / "binary.json")
