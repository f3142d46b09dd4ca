"""A session at work in a scene: volume, segmentation, prompts in the scene, a fast model; and bundles of scenes."""

import slicer

from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.mrml.scene_prompts import SessionPrompts
from FoundationSegLib.mrml.segment_store import SceneStore
from FoundationSegLib.mrml.volumes import volume_from_node
from FoundationSegLib.session.segment_store import Options
from FoundationSegLib.session.segments import SegmentSession
from FoundationSegLib.session.session import Session
from Testing.unit.session.session_cases import SLICES, FakeClient


class SceneSession:
    """A session on nodes with its store, prompts and client: what a panel has, without the panel."""

    def __init__(self, segmentation_node, volume_node, choice=SLICES, later=None):
        self.errors, self.outcomes = [], []
        self.store = SceneStore(segmentation_node, volume_node)
        self.prompts = SessionPrompts(segmentation_node, volume_node, self.errors.append, later)
        self.client = FakeClient(volume_from_node(volume_node))
        self.session = Session(
            self.client.volume,
            self.store,
            self.client,
            Options(choice, ask_above=None),
            on_outcome=self.outcomes.append,
            on_request=self.client.on_request,
            prompt_store=self.prompts,
            version="0",
        )
        self.session.listeners += [self.store.describe, self.session.history.keep_steps]
        self.client.session = self.session
        self.prompts.follow(self.session)

    def segment(self, segment_id):
        return SegmentSession(self.session, segment_id)

    def node(self, segment, key):
        return self.prompts.scene.node(segment.segment_id, key)

    def place(self, segment, key):
        return self.node(segment, key).GetNthControlPointPosition(0)

    def drag(self, segment, key, position):
        self.node(segment, key).SetNthControlPointPosition(0, position)

    def record(self, segment):
        return self.prompts.scene.record(segment.segment_id)

    def kept(self, segment):
        return {kept.key: kept.prompt for kept in self.record(segment).prompts}


def with_files(scene, folder):
    """Slicer's application has made these two long before; reading a bundle needs them."""
    cache, manager = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
    folder.mkdir(exist_ok=True)
    cache.SetRemoteCacheDirectory(str(folder))
    scene.SetCacheManager(cache)
    manager.SetCacheManager(cache)
    scene.SetDataIOManager(manager)
    return cache, manager


def save_bundle(scene, folder):
    """The scene in a ``.mrb`` file; returns its path."""
    kept = with_files(scene, folder / "cache")
    assert scene.WriteToMRB(str(folder / "scene.mrb"), None) and kept
    return folder / "scene.mrb"


def open_bundle(path, cache):
    """A new scene with what a bundle holds: what to keep alive (the scene first), its volume, its segmentation."""
    headless = boot_scene()
    kept = headless, with_files(headless.scene, cache)
    assert headless.scene.ReadFromMRB(str(path), True)
    nodes = (headless.scene.GetFirstNodeByClass(f"vtkMRML{kind}Node") for kind in ("ScalarVolume", "Segmentation"))
    return kept, *nodes
