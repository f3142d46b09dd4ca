"""The sample images that this project names are images that Slicer's own module Sample Data offers, and may be shown.

So nothing is registered a second time. With SLICER_SOURCE naming a checkout of Slicer/Slicer, the facts are held
against its sources.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from Testing.unit.project_files import ROOT, project_files


@dataclass(frozen=True)
class Sample:
    """An image of Sample Data: its file, and the hash that is a part of its address."""

    file: str
    sha256: str
    may_be_shown: bool = True


SAMPLES = {
    "CTChest": Sample("CT-chest.nrrd", "4507b664690840abb6cb9af2d919377ffc4ef75b167cb6fd0f747befdb12e38e"),
    "CTACardio": Sample("CTA-cardio.nrrd", "3b0d4eb1a7d8ebb0c5a89cc0504640f76a030b4e869e33ff34c564c3d3b88ad2"),
    "CTLiver": Sample("CTLiver.nrrd", "e16eae0ae6fefa858c5c11e58f0f1bb81834d81b7102e021571056324ef6f37e"),
    "MRHead": Sample("MR-head.nrrd", "cc211f0dfd9a05ca3841ce1141b292898b2dd2d3f08286affadf823a7e58df93"),
    "MRBrainTumor1": Sample("RegLib_C01_1.nrrd", "998cb522173839c78657f4bc0ea907cea09fd04e44601f17c82ea27927937b95"),
    "MRBrainTumor2": Sample("RegLib_C01_2.nrrd", "1a64f3f422eb3d1c9b093d1a18da354b13bcf307907c66317e2463ee530b7a97"),
    "CTAAbdomenPanoramix": Sample(
        "Panoramix-cropped.nrrd", "146af87511520c500a3706b7b2bfb545f40d5d04dd180be3a7a2c6940e447433", may_be_shown=False
    ),
}
# As Slicer writes such names: the modality in capitals, then words that start with one. "MRML" and "CTK" are others.
_NAME = re.compile(r"\b(?:CBCT|CTA|CTP|CT|MRUS|MR)(?!K|ML)(?=[A-Z])\w*[a-z]\w*")
WHERE_TO_SAY_NEVER = ".github/CONTRIBUTING.md"


def named_samples() -> dict[str, set[str]]:
    """The samples that the documentation and the module name, by file."""
    names = [
        name for name in project_files(ROOT) if name.startswith("FoundationSeg/") and name.endswith((".py", ".ui"))
    ]
    return {
        name: set(_NAME.findall((ROOT / name).read_text(encoding="utf-8")))
        for name in (*names, "README.md", WHERE_TO_SAY_NEVER)
    }


def test_every_sample_that_is_named_is_one_of_slicers_and_may_be_shown():
    named = named_samples()
    assert {"CTChest", "MRBrainTumor1"} <= named[WHERE_TO_SAY_NEVER]
    for name, found in named.items():
        assert found <= SAMPLES.keys(), name
        assert name == WHERE_TO_SAY_NEVER or all(SAMPLES[sample].may_be_shown for sample in found), name


@pytest.mark.parametrize("name", SAMPLES)
def test_slicer_offers_the_sample(name):
    folder = os.environ.get("SLICER_SOURCE")
    if not folder:
        pytest.skip("SLICER_SOURCE names no checkout")
    source = Path(folder, "Modules", "Scripted", "SampleData", "SampleData.py").read_text(encoding="utf-8")
    sample = SAMPLES[name]
    entry = rf'\("{name}", .{{4,30}}, TESTING_DATA_URL \+ "SHA256/(\w+)",\s+"([^"]+)", "[^"]+", "SHA256:(\w+)"\)'
    assert re.findall(entry, source) == [(sample.sha256, sample.file, sample.sha256)]
