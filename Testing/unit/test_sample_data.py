"""The sample images that this project names are images that Slicer's own module Sample Data offers, and may be shown.

So nothing is registered a second time.
"""

import re

from Testing.unit.project_files import ROOT, project_files

# By name, whether an image of Sample Data may be shown.
SAMPLES = dict.fromkeys(("CTChest", "CTACardio", "CTLiver", "MRHead", "MRBrainTumor1", "MRBrainTumor2"), True)
SAMPLES["CTAAbdomenPanoramix"] = False
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
        assert name == WHERE_TO_SAY_NEVER or all(SAMPLES[sample] for sample in found), name
