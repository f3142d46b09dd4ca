"""What the adapters' tests share: a small checkpoint of SAM's family with its card, and a single thread."""

from collections.abc import Iterator

import pytest
import torch

from FoundationSegLib.models.segmentation import sam
from Testing.models.sam_reference import TransformersSam
from Testing.models.small_models import CATALOGUE
from Testing.models.small_sam import small_config, write_checkpoint


@pytest.fixture(scope="session")
def sam_card():
    return CATALOGUE["sam-vit-base"]


@pytest.fixture(scope="session")
def sam_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam")
    write_checkpoint(folder, small_config(256))
    return folder


@pytest.fixture(scope="session")
def sam_files(sam_folder):
    return {path.name: path for path in sam_folder.iterdir()}


@pytest.fixture(scope="session")
def large_folder(tmp_path_factory):
    """The true side of 1024 pixels."""
    folder = tmp_path_factory.mktemp("sam-1024")
    write_checkpoint(folder, small_config(1024, heads=1), seed=1)
    return folder


@pytest.fixture(scope="session")
def sam_model(sam_card, sam_files):
    return sam.load(sam_card, sam_files, "cpu")


@pytest.fixture(scope="session")
def sam_reference(sam_folder):
    return TransformersSam(sam_folder)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are slowed down by a second thread; and the last bit of a sum depends on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
