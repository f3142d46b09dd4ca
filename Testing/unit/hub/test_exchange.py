"""Checkpoints that travel by hand: in and out, and archives that nobody should open."""

import gzip
import io
import random
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download

from FoundationSegLib.errors import Cancelled, CheckpointError, OutputError
from FoundationSegLib.hub.exchange import export_checkpoint, import_checkpoint
from FoundationSegLib.hub.fetch import download_checkpoint
from FoundationSegLib.hub.store import Store
from FoundationSegLib.progress import Progress
from Testing.unit.fakes import WEIGHTS, fake_card, fill_store
from Testing.unit.hub.hub_cases import CONFIG, FILES, REPOSITORY, content_of, fetch, hub_card, require_whole

CARD = fake_card()


def require_refused(store, path, message):
    """The import is refused, and leaves nothing in the store."""
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(store, CARD, path, Progress())
    assert [path for path in store.folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["out", "out.zip", "out.tar", "out.tar.gz", "out.tgz"])
def test_what_one_machine_exports_another_imports(hub, commit, store, tmp_path, name):
    card = hub_card()
    fetch(store, card)
    export_checkpoint(store, card, tmp_path / name, Progress())
    assert {path.name for path in tmp_path.iterdir()} == {"store", name}
    assert name != "out" or str(tmp_path) not in (tmp_path / name / "complete.json").read_text()
    other = Store(tmp_path / "other")
    hub.requests.clear()
    import_checkpoint(other, card, tmp_path / name, Progress())
    assert hub.requests == []
    require_whole(other, card)
    assert other.commit(card) == commit


@pytest.mark.parametrize("path", ["fake/fake.pth", "fake.pth", "a/b/fake/fake.pth", "some where/fake.pth"])
def test_files_are_found_by_path_or_by_name(store, tmp_path, path):
    (tmp_path / "folder" / path).parent.mkdir(parents=True)
    (tmp_path / "folder" / path).write_bytes(WEIGHTS)
    import_checkpoint(store, CARD, tmp_path / "folder", Progress())
    assert store.status(CARD) == "ready"


def test_the_users_hugging_face_folder_can_be_imported(hub, commit, store, tmp_path):
    """Its files are links; the user named the folder, so they are followed."""
    paths = [hf_hub_download(REPOSITORY, path, cache_dir=str(tmp_path / "cache")) for path in FILES]
    import_checkpoint(store, hub_card(), Path(paths[-1]).parent, Progress())
    assert content_of(store, hub_card()) == FILES


@pytest.mark.parametrize("content", [WEIGHTS[:-1], WEIGHTS + b"x", WEIGHTS[::-1], b""])
def test_wrong_bytes_do_not_come_in(store, tmp_path, content):
    (tmp_path / "fake.pth").write_bytes(content)
    require_refused(store, tmp_path, "its length or hash is wrong")
    assert store.status(CARD) == "absent"


def put(folder, *contents):
    """Write the files of the card on the Hub with these contents."""
    for path, content in zip(FILES, contents, strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def test_an_import_that_no_hash_proves_gives_way_to_another_and_to_the_hub(hub, commit, store, tmp_path):
    right, wrong = FILES.values(), [content[::-1] for content in FILES.values()]
    for contents in (wrong, right, wrong):
        import_checkpoint(store, hub_card(), put(tmp_path / "folder", *contents), Progress())
        assert [*content_of(store, hub_card()).values()] == [*contents]
    download_checkpoint(store, hub_card(), Progress())
    require_whole(store, hub_card())
    import_checkpoint(store, hub_card(), put(tmp_path / "folder", *wrong), Progress())
    require_whole(store, hub_card())


@pytest.mark.parametrize("length", [0, 3])
def test_a_file_far_below_its_estimated_length_does_not_come_in(store, tmp_path, length):
    put(tmp_path / "folder", *(content[:length] for content in FILES.values()))
    card = hub_card(sizes=length > 0, unverified=("source.files",))
    with pytest.raises(CheckpointError, match="its length or hash is wrong"):
        import_checkpoint(store, card, tmp_path / "folder", Progress())
    assert store.status(card) == "absent"


def test_an_archive_whose_own_record_disagrees_is_refused(hub, commit, store, tmp_path):
    """Where the card has no hash, the exporting machine's counts."""
    fetch(store, hub_card())
    export_checkpoint(store, hub_card(), tmp_path / "out", Progress())
    (tmp_path / "out" / "config.json").write_bytes(b"x" * len(CONFIG))
    with pytest.raises(CheckpointError, match=r"config\.json in out is not that of fake"):
        import_checkpoint(Store(tmp_path / "other"), hub_card(), tmp_path / "out", Progress())


def test_an_error_of_the_source_is_not_one_of_the_store(store, tmp_path):
    """As of a drive that was pulled out, or of a member that is damaged."""
    zip_of(tmp_path / "a.zip", "x")
    content = (tmp_path / "a.zip").read_bytes()
    at = content.index(b"fake.pth") + 10
    (tmp_path / "a.zip").write_bytes(content[:at] + b"\xff" * 9 + content[at + 9 :])
    require_refused(store, tmp_path / "a.zip", "a.zip is damaged or no archive")
    (tmp_path / "fake.pth").symlink_to("/proc/self/mem")  # it opens, and cannot be read
    (tmp_path / "a.zip").unlink()
    require_refused(store, tmp_path, "cannot be read: Input/output error")


def zip_of(path, name, content=b"x", mode=0o644):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fake.pth", WEIGHTS)
        archive.writestr(info, content)


def tar_of(path, name, **fields):
    with tarfile.open(path, "w:gz") as archive:
        for member, content in (("fake.pth", WEIGHTS), (name, b"x")):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            for field, value in fields.items() if member == name else ():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "C:/evil", "a\\..\\evil", "nul"])
@pytest.mark.parametrize(("ending", "pack"), [("zip", zip_of), ("tar.gz", tar_of)])
def test_names_that_lead_elsewhere_are_refused(store, tmp_path, name, ending, pack):
    pack(tmp_path / f"evil.{ending}", name)
    require_refused(store, tmp_path / f"evil.{ending}", "leads elsewhere")
    assert {entry.name for entry in tmp_path.iterdir()} == {"store", f"evil.{ending}"}


def test_links_and_devices_are_refused(store, tmp_path):
    zip_of(tmp_path / "evil.zip", "link", b"/etc/passwd", 0o120777)
    for n, kind in enumerate([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]):
        tar_of(tmp_path / f"evil{n}.tar.gz", "odd", type=kind, linkname="/etc/passwd", size=0)
    for path in sorted(tmp_path.glob("evil*")):
        require_refused(store, path, "has a link in it")


def test_bombs_are_not_unpacked(store, tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fake.pth", bytes(50_000_000))
    require_refused(store, tmp_path / "bomb.zip", "its length or hash is wrong")
    header = tarfile.TarInfo("big")
    header.size = 1 << 40
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as stream:
        stream.write(header.tobuf() + bytes(100_000))
    require_refused(store, tmp_path / "bomb.tar.gz", "far more than the checkpoint")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.txt", "absent.zip", "absent"])
def test_what_is_no_archive_is_told(store, tmp_path, name):
    is_absent = name.startswith("absent")
    if not is_absent:
        (tmp_path / name).write_bytes(b"no archive at all" * 100)
    require_refused(store, tmp_path / name, f"{name} cannot be read: No such file" if is_absent else name)


def test_an_archive_that_lacks_a_file_is_told(store, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    require_refused(store, tmp_path / "a.zip", r"fake/fake\.pth of fake is not in a\.zip")


def test_a_damaged_archive_never_gives_a_wrong_checkpoint(tmp_path):
    source = random.Random(3)
    zip_of(tmp_path / "good.zip", "more.txt", b"hello" * 100)
    tar_of(tmp_path / "good.tar.gz", "more.txt")
    for n in range(60):
        good = tmp_path / ("good.zip" if n % 2 else "good.tar.gz")
        content = bytearray(good.read_bytes())
        for _ in range(source.randrange(1, 4)):
            content[source.randrange(len(content))] ^= 1 << source.randrange(8)
        path, store = tmp_path / f"bad{n}.{good.name.partition('.')[2]}", Store(tmp_path / f"store{n}")
        path.write_bytes(content[: source.randrange(20, len(content) + 1)] if n % 3 else content)
        try:
            import_checkpoint(store, CARD, path, Progress())
            assert content_of(store, CARD) == {"fake/fake.pth": WEIGHTS}
        except CheckpointError:
            assert store.status(CARD) == "absent"


def test_a_cancelled_import_leaves_nothing(store, tmp_path):
    (tmp_path / "fake.pth").write_bytes(WEIGHTS)
    progress = Progress()
    progress.token.cancel()
    with pytest.raises(Cancelled):
        import_checkpoint(store, CARD, tmp_path, progress)
    assert [path for path in store.folder.rglob("*") if path.is_file()] == []


def test_terms_hold_for_imports_too(store, tmp_path):
    card = fake_card(license={"name": "Terms", "commercial_use": "no", "must_accept": True})
    (tmp_path / "fake.pth").write_bytes(WEIGHTS)
    with pytest.raises(CheckpointError, match=r"licence to accept.*models import"):
        import_checkpoint(store, card, tmp_path, Progress())
    import_checkpoint(store, card, tmp_path, Progress(), accept_license=True)
    assert store.status(card) == "ready"


def test_an_export_replaces_nothing_and_leaves_nothing_behind(tmp_path):
    store = fill_store(tmp_path / "store")
    (tmp_path / "taken.zip").write_bytes(b"mine")
    for path, message in (
        (tmp_path / "taken.zip", "is there already"),
        (tmp_path / "no" / "a.zip", "cannot be written"),
    ):
        with pytest.raises(OutputError, match=message):
            export_checkpoint(store, CARD, path, Progress())
    assert (tmp_path / "taken.zip").read_bytes() == b"mine"
    store.file_path(CARD, CARD.source.files[0]).write_bytes(WEIGHTS[::-1])
    with pytest.raises(CheckpointError, match="damaged"):
        export_checkpoint(store, CARD, tmp_path / "out.zip", Progress())
    shutil.rmtree(store.folder)
    with pytest.raises(CheckpointError, match="not downloaded"):
        export_checkpoint(store, CARD, tmp_path / "out.zip", Progress())
    assert {path.name for path in tmp_path.iterdir()} == {"taken.zip"}
