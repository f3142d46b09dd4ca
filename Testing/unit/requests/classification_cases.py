"""An answer as an engine gives it, for those who show it."""

from pathlib import Path
from typing import Any

import numpy as np

from FoundationSegLib.catalog.label_sets import LABEL_SETS_VARIABLE, import_label_set
from FoundationSegLib.requests.classification import Frame
from FoundationSegLib.requests.classification_answer import Classification, ConceptScore, EvidenceMap, LabelScore
from FoundationSegLib.requests.scoring import Aggregation
from FoundationSegLib.requests.segmentation import CheckpointRecord

CHECKPOINT = CheckpointRecord("biomedclip", "owner/name", "abc123", "f" * 64)


def answer(**fields):
    """Three labels on slices 2 to 4, the middle one without anything to see; evidence for the second label."""
    curves = np.array([[0.2, 0.7, 0.1], [np.nan] * 3, [0.4, 0.5, 0.1]], np.float32)
    scores = (
        LabelScore("Liver", 0.3, 0.05, 0.2, 0.4, -0.3, False),
        LabelScore("Spleen", 0.6, 0.02, 0.55, 0.63, 0.3, True),
        LabelScore("Kidney", 0.1, 0.0, 0.1, 0.1, -0.5, False),
    )
    values = np.zeros((2, 4, 4), np.float32)
    values[:, 1, 2] = 1
    evidence = EvidenceMap("Spleen", "similarity", "k", (2, 4), Frame((0, 8), (0, 8)), values)
    usual = {
        "request_id": 7,
        "scores": scores,
        "rule": "softmax",
        "temperature": 1.0,
        "margin": 0.1,
        "aggregation": Aggregation("top-k", 2),
        "label_set": "ct-abdomen-organs",
        "axis": "k",
        "slices": (2, 3, 4),
        "curves": curves,
        "looks": ({"name": "ct-lung", "channels": [{"low": -1350.0, "high": 150.0}]},),
        "checkpoint": CHECKPOINT,
        "device": "cpu",
        "precision": "float32",
        "concepts": (ConceptScore("Liver", "a large organ", 0.25),),
        "evidence": (evidence,),
        "notes": ("a note",),
        "timings_s": {"load": 1.0, "text": 0.25, "encode": 2.0, "evidence": 0.5},
        "counts": {"images": 9, "image_batches": 2, "texts": 3, "text_batches": 1},
    }
    return Classification(**{**usual, **fields})


def import_phenotypes(folder: Path, monkeypatch: Any) -> None:
    """Keep a table of 1,692 made-up phenotypes as the set of the user's own that Merlin's card names."""
    monkeypatch.setenv(LABEL_SETS_VARIABLE, str(folder / "label-sets"))
    rows = ["phecode,phecode_str", *(f"{n},Phenotype {n}" for n in range(1692))]
    (folder / "phenotypes.csv").write_text("\n".join(rows), encoding="utf-8")
    import_label_set(folder / "phenotypes.csv", "merlin-phenotypes")
