"""Every value that becomes a document or a message comes back as it was; all else is refused with its place."""

import copy
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import Field, FrozenInstanceError, asdict, astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.catalog.label_sets import label_set_of, read_label_sets
from FoundationSegLib.catalog.resource_files import resource_folder
from FoundationSegLib.codec import Format, from_document, frozen, mutable, pack, to_document, unpack
from FoundationSegLib.errors import DocumentError, FoundationSegError, GeometryError
from FoundationSegLib.imaging.geometry import Box, Geometry
from FoundationSegLib.imaging.masks import EMPTY_MASK, PackedMask, pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.installation.inspection import Device, DeviceReport, PythonReport
from FoundationSegLib.progress import ProgressReport
from FoundationSegLib.prompts.kinds import LassoPrompt, MaskPrompt, SegmentPrompts
from FoundationSegLib.requests.classification import ClassifyRequest, EvidenceWish, Subject
from FoundationSegLib.requests.classification_answer import Classification
from FoundationSegLib.requests.maintenance import (
    DownloadRequest,
    ImportRequest,
    InspectRequest,
    MemoryBudget,
    WorkerSettings,
)
from FoundationSegLib.requests.scoring import Aggregation, Scoring
from FoundationSegLib.requests.segmentation import (
    CheckpointRecord,
    Prediction,
    PredictRequest,
    Propagation,
    SegmentPrediction,
)
from Testing.unit.requests.classification_cases import answer
from Testing.unit.strategies import boxes, geometries, prompts

DTYPES = ("i1", "u1", "<i2", ">i2", "<u4", "<i8", "<f4", ">f8", "<f2")
SETS = read_label_sets(resource_folder("LabelSets"))
MASK = np.random.default_rng(0).random((3, 5, 7)) > 0.4
CHECKPOINT = CheckpointRecord("fake", "fake-wheel", "1.0", "ab")


def crossed(value: Any) -> Any:
    """A value on the other side: the document has been text, the bytes are bytes of their own."""
    document, parts = pack(value)
    return unpack(type(value), json.loads(json.dumps(document, allow_nan=False)), bytearray(b"".join(parts)), "it")


@given(geometries(), st.sampled_from(DTYPES), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_volume_arrives_as_it_was(geometry, dtype, is_colour, seed):
    shape = (*geometry.shape_kji, 3) if is_colour else geometry.shape_kji
    voxels = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    volume = Volume(voxels, geometry, "CT", (400.0, 40.0))
    arrived = crossed(volume)
    assert arrived.key == volume.key
    assert np.array_equal(arrived.array_kji, voxels)
    assert (arrived.array_kji.dtype, arrived.geometry) == (voxels.dtype, geometry)
    assert (arrived.modality, arrived.window_level) == ("CT", (400.0, 40.0))
    assert not arrived.array_kji.flags.writeable


def test_an_array_that_lies_together_is_not_copied():
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    _, parts = pack(Volume(voxels, Geometry(np.eye(4), (2, 3, 4))))
    assert np.shares_memory(np.frombuffer(parts[0], np.uint8), voxels)


@st.composite
def masks(draw):
    mask = np.random.default_rng(draw(st.integers(0, 99))).random((2, 3, 4)) > draw(st.floats(0, 1))
    return MaskPrompt("seed.seg.nrrd", "Leber", voxels=draw(st.none() | st.just(pack_mask(mask, (5, 6, 7)))))


PROPAGATIONS = st.none() | st.builds(
    Propagation, st.none() | st.integers(0, 3), st.none() | st.integers(4, 9), st.sampled_from(["both", "up", "down"])
)


@given(
    st.lists(st.lists(prompts | masks(), min_size=1, max_size=4), min_size=1, max_size=3),
    PROPAGATIONS,
    st.none() | boxes(),
)
def test_a_request_to_predict_arrives_as_it_was(segment_prompts, propagation, region):
    segments = tuple(SegmentPrompts(f"Leber é {n}", tuple(some)) for n, some in enumerate(segment_prompts))
    request = PredictRequest(7, "fake", "ab", segments, "400,40", propagation, region)
    assert crossed(request) == request


SUBJECTS = st.one_of(
    st.builds(Subject, st.sampled_from("ijk"), st.none() | st.integers(0, 3), st.none() | st.integers(4, 9)),
    st.just(Subject(box=Box((1, 2, 3), (4, 5, 6)))),
    st.just(Subject("j", segment=pack_mask(MASK, (4, 0, 2)), view="mask", margin=0.5)),
)


@given(
    st.sampled_from([*SETS.values(), label_set_of(["a {} b", 'Grüße "so"', "肝臓"], "findings")]),
    SUBJECTS,
    st.builds(Scoring, st.sampled_from(["auto", "pairs", "concepts"]), st.floats(0.5, 2), st.floats(0, 1)),
    st.builds(Aggregation, st.sampled_from(["mean", "max", "top-k"]), st.integers(1, 9)),
    st.none() | st.builds(EvidenceWish, st.sampled_from(["", "Liver"]), st.sampled_from(["similarity", "occlusion"])),
)
def test_a_request_to_classify_arrives_as_it_was(labels, subject, scoring, aggregation, evidence):
    request = ClassifyRequest(3, "biomedclip", "key", labels, subject, "ct-lung", scoring, aggregation, evidence)
    assert crossed(request) == request


def test_a_classification_arrives_as_it_was():
    sent = answer()
    arrived = crossed(sent)
    assert np.array_equal(arrived.curves, sent.curves, equal_nan=True)
    assert np.array_equal(arrived.evidence[0].values, sent.evidence[0].values)
    assert json.dumps(arrived.to_document()) == json.dumps(sent.to_document())
    assert (arrived.request_id, arrived.scores, arrived.concepts) == (sent.request_id, sent.scores, sent.concepts)


def prediction(*masks, score=None):
    parts = tuple(SegmentPrediction(mask, score) for mask in masks)
    return Prediction(7, parts, {"low": -160.0}, CHECKPOINT, "cpu", "bfloat16", ("note",), {"a": 0.1}, {"b": 2})


@given(st.integers(0, 2**32 - 1), st.none() | st.floats(0, 1))
def test_a_prediction_arrives_as_it_was(seed, score):
    random = np.random.default_rng(seed)
    masks = [pack_mask(random.random((3, 4, 5)) > random.random(), (10, 20, 30)) for _ in range(random.integers(1, 4))]
    sent = prediction(EMPTY_MASK, *masks, score=score)
    assert crossed(sent) == sent


def test_a_number_that_is_none_is_not_said():
    assert crossed(prediction(EMPTY_MASK, score=math.nan)).segments[0].score is None


REPORT = DeviceReport((Device("cuda", "Card", 8 << 30, 1 << 30), Device("cpu", "CPU", 0)), "570.1", "12.8", "no")


@pytest.mark.parametrize(
    "value",
    [
        DownloadRequest(7, "fake", accept_license=True),
        ImportRequest(1, "fake", Path("models") / "é"),
        InspectRequest(1, ("a", "b"), devices=True),
        ProgressReport("slices", 3, 9, "model.safetensors", 1, 5),
        PythonReport("3.12.1", "Linux", {"torch": ""}, True),
        PythonReport("3.12.1", "Linux", {"torch": ""}, False, REPORT),
        WorkerSettings(),
        WorkerSettings("cuda", Path("models") / "é", "official", False, MemoryBudget(1, 2, 3)),
    ],
)
def test_what_is_plain_becomes_a_document_and_comes_back(value):
    assert from_document(type(value), json.loads(json.dumps(to_document(value))), "it") == value


# Values


@dataclass
class Amount:
    """The fields that a value may have, to be made a value in two ways."""

    size: float
    unit: str = "mm"
    parts: list[int] = field(default_factory=list)
    kind: ClassVar[str] = "length"
    note: str = field(default="", compare=False, repr=False)
    square: float = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if self.size < 0:
            raise GeometryError("is negative")
        object.__setattr__(self, "square", self.size**2)


def made(decorate: Callable[[type], type]) -> Any:
    """The class of an amount, as a decorator makes it."""
    names = {name: vars(Amount)[name] for name in ("__module__", "__annotations__", "__post_init__", "kind")}
    given = {item.name: field(**options(item)) for item in fields(Amount) if item.name != "size"}
    return decorate(type("Amount", (), {**names, **given}))


def options(item: Field) -> dict[str, Any]:
    names = ("default", "default_factory", "init", "compare", "repr")
    return {name: getattr(item, name) for name in names}


def outcome(action: Callable[[Any], Any], kind: Any) -> Any:
    """The text of a result, which does not say whose class it is of, or the error."""
    try:
        return repr(action(kind))
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("eq", [True, False])
@pytest.mark.parametrize("decorate", [frozen, mutable])
@pytest.mark.parametrize(
    "action",
    [
        lambda kind: kind(2.0),
        lambda kind: kind(2.0, "cm", [1], note="seen"),
        lambda kind: kind(),
        lambda kind: kind(1, 2, 3, 4, 5),
        lambda kind: kind(1.0, square=3.0),
        lambda kind: kind(-1.0),
        lambda kind: kind(1.0).parts is kind(1.0).parts,
        lambda kind: (kind(2.0).square, kind(2.0).kind, kind.__match_args__, kind.__slots__),
        lambda kind: (kind(2.0) == kind(2.0), kind(2.0, note="a") == kind(2.0), kind(1.0) == kind(2.0), kind(1.0) == 1),
        lambda kind: len({kind(2.0, parts=()), kind(2.0, parts=())}),
        lambda kind: isinstance(hash(kind(2.0)), int),
        lambda kind: (replace(kind(2.0), unit="cm"), asdict(kind(2.0, parts=[1])), astuple(kind(2.0))),
        lambda kind: (copy.copy(kind(2.0, note="a")).note, copy.deepcopy(kind(2.0, "cm", [1]))),
        lambda kind: [item.name for item in fields(kind)],
        lambda kind: hasattr(kind(2.0), "__dict__"),
        lambda kind: (amount := kind(2.0)).parts.append(amount) or amount,
    ],
)
def test_a_record_is_as_a_dataclass(action, decorate, eq):
    """Twice: its methods are compiled at the first call."""
    ours, usual = made(decorate(eq=eq)), made(dataclass(frozen=decorate is frozen, slots=True, eq=eq))
    expected = [outcome(action, usual) for _ in range(2)]
    assert [outcome(action, ours) for _ in range(2)] == expected


def test_a_value_cannot_be_changed_and_is_pickled():
    box = Box((0, 0, 0), (1, 2, 3))
    with pytest.raises(FrozenInstanceError, match="start_kji"):
        box.start_kji = (1, 1, 1)
    with pytest.raises(FrozenInstanceError, match="start_kji"):
        del box.start_kji
    assert pickle.loads(pickle.dumps(box)) == box


# What the documents of files may want otherwise


@dataclass(frozen=True, slots=True)
class Near:
    distance: float
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Far:
    places: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Outer:
    key: str
    where: Near | Far | None = None
    kind: Literal["a", "b"] = "a"
    counts: dict[str, int] = field(default_factory=dict)


FORMAT = Format(
    tags={Near: ("kind", "near"), Far: ("kind", "far"), type(None): ("kind", "none")},
    flat={Outer: "where"},
    omitted=frozenset({(Near, "note")}),
)


@pytest.mark.parametrize(
    ("value", "document"),
    [
        (Outer("x", Near(1.5)), {"key": "x", "kind": "near", "distance": 1.5}),
        (Outer("x", Far((1, 2))), {"key": "x", "kind": "far", "places": [1, 2]}),
        (Outer("x"), {"key": "x", "kind": "none"}),
    ],
)
def test_fields_stand_beside_others_under_names_of_the_format(value, document):
    @dataclass(frozen=True, slots=True)
    class Flat:
        key: str
        where: Near | Far | None = None

    form = replace(FORMAT, flat={Flat: "where"})
    flat = Flat(value.key, value.where)
    assert to_document(flat, form=form) == document
    assert from_document(Flat, document, "it", form) == flat


@pytest.mark.parametrize(
    ("kind", "document", "message"),
    [
        (Outer, {}, "it: key is missing"),
        (Outer, [], "it: must be a table"),
        (Outer, {"key": "a", "more": 1}, "it: unknown field 'more'"),
        (Outer, {"key": 3}, "it: key: must be str, not int"),
        (Outer, {"key": "a", "kind": "c"}, "it: kind: must be one of a, b, not 'c'"),
        (Outer, {"key": "a", "where": {"type": "Middle"}}, "it: where: type: no kind is called 'Middle'"),
        (Outer, {"key": "a", "where": {"type": "Far", "places": [1]}}, "it: where: places: must be a list of 2, not"),
        (Outer, {"key": "a", "where": {"type": "Near", "distance": math.inf}}, "distance: must be a finite number"),
        (Near, {"distance": True}, "it: distance: must be float, not bool"),
        (Near, {"distance": 10**30}, "it: distance: is larger than anything"),
        (Near, {"distance": 1.0, "note": "x" * 30}, None),
        (LassoPrompt, {"points": [[0.0, 1.0, "2"]]}, r"it: points\[0\]\[2\]: must be float, not str"),
        (LassoPrompt, {"points": [], "polarity": "no"}, "it: polarity: must be one of positive, negative, not 'no'"),
        (PackedMask, {"box": {"start_kji": [0, 0, 0], "stop_kji": [2, 2, 2]}, "bits": "?"}, "it: bits: must be bytes"),
        (PackedMask, {"box": {"start_kji": [0, 0, 0], "stop_kji": [2, 2, 2]}, "bits": {"bytes": 9}}, "fewer bytes"),
    ],
)
def test_a_document_of_another_form_is_refused_with_its_place(kind, document, message):
    if message is None:
        from_document(kind, document, "it")
        return
    with pytest.raises(DocumentError, match=message):
        from_document(kind, document, "it")


def test_bytes_are_not_for_a_document():
    with pytest.raises(TypeError, match="holds bytes"):
        to_document(pack_mask(MASK))


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2, 3, 5]},
        {"shape": [2, 3, -4]},
        {"dtype": "<u1"},
        {"dtype": "O"},
        {"dtype": "nonsense"},
        {"dtype": 3},
    ],
)
def test_an_array_that_is_not_the_one_it_says_is_refused(change):
    document, parts = pack(Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), Geometry(np.eye(4), (2, 3, 4))))
    document["array_kji"] |= change
    with pytest.raises(FoundationSegError):
        unpack(Volume, document, b"".join(parts), "volume")


@pytest.mark.parametrize("cut", [-4, 4])
def test_bytes_too_few_or_too_many_are_refused(cut):
    document, parts = pack(answer())
    payload = b"".join(parts)
    with pytest.raises(DocumentError, match="bytes"):
        unpack(Classification, document, payload[:cut] if cut < 0 else payload + b"\0" * cut, "answer")
    document, parts = pack(pack_mask(MASK))
    document["bits"]["bytes"] += cut
    with pytest.raises((DocumentError, GeometryError)):
        unpack(PackedMask, document, b"".join(parts) + b"\0" * max(0, cut), "mask")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["key", "where", "type", "points", "x"]), inner)
        ),
    )
)
def test_noise_is_refused_with_an_error_of_ours(document):
    for kind in (Outer, LassoPrompt, PredictRequest, PackedMask):
        try:
            from_document(kind, document, "it")
        except FoundationSegError:
            continue


def test_numpy_comes_with_the_first_array_alone():
    code = (
        "import sys\nfrom FoundationSegLib import codec\n"
        "from FoundationSegLib.requests import maintenance\n"
        "from FoundationSegLib.worker import process, protocol, server\n"
        "codec.to_document(maintenance.WorkerSettings())\nassert not {'numpy', 'torch'} & set(sys.modules)"
    )
    subprocess.run((sys.executable, "-c", code), check=True, cwd=Path(__file__).resolve().parents[2])
