import gzip

import pytest

from FoundationSegLib.errors import InputError
from FoundationSegLib.mrml.files import require_sound_nrrd

HEADER = """NRRD0004
# Complete NRRD file format specification at:
# http://teem.sourceforge.net/nrrd/format.html
type: unsigned char
dimension: 3
space: left-posterior-superior
sizes: 4 3 2
space directions: (-0.7,0.2,0.1) (-0.1,-0.9,0.02) (-0.3,-0.05,3)
kinds: domain domain domain
encoding: gzip
space origin: (-10,20,5)
Segment0_Name:=sizes: 1 1 1
"""
DATA = gzip.compress(bytes(24), mtime=0)


def check(tmp_path, header=HEADER, data=DATA):
    path = tmp_path / "any.seg.nrrd"
    path.write_bytes(header.encode() + b"\n" + data)
    require_sound_nrrd(path)


def test_a_whole_file(tmp_path):
    check(tmp_path)
    check(tmp_path, HEADER.replace("gzip", "raw"), bytes(24))
    check(tmp_path, HEADER.replace("unsigned char", "ushort\nendian: little"), gzip.compress(bytes(48)))


def test_several_layers(tmp_path):
    header = HEADER.replace("dimension: 3", "dimension: 4").replace("sizes: 4", "sizes: 2 4", 1)
    header = header.replace("directions:", "directions: none").replace("kinds:", "kinds: list")
    check(tmp_path, header, gzip.compress(bytes(48)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("NRRD0004", "P6"),
        ("type: unsigned char\n", ""),
        ("unsigned char", "float"),
        ("unsigned char", "short"),
        ("sizes: 4 3 2\n", ""),
        ("sizes: 4 3 2", "sizes: 4 3"),
        ("sizes: 4 3 2", "sizes: 4 -3 -2"),
        ("sizes: 4 3 2", "sizes: 4 three 2"),
        ("sizes: 4 3 2", "sizes: 4 3 20"),
        ("dimension: 3", "dimension: 2"),
        ("space: left-posterior-superior\n", ""),
        ("left-posterior-superior", "scanner"),
        ("(-0.3,-0.05,3)", ""),
        ("(-0.3,-0.05,3)", "(0,0,0)"),
        ("(-0.3,-0.05,3)", "(-0.7,0.2,0.1)"),
        ("(-0.3,-0.05,3)", "(nan,0,1)"),
        ("(-0.3,-0.05,3)", "(0,1)"),
        ("(-10,20,5)", "(-10,20)"),
        ("(-10,20,5)", "none"),
        ("kinds: domain domain domain", "kinds: domain domain"),
        ("gzip", "bzip2"),
        ("encoding: gzip\n", ""),
        ("encoding: gzip", "encoding: gzip\ndata file: elsewhere.raw"),
    ],
)
def test_a_damaged_header(tmp_path, old, new):
    assert old in HEADER
    with pytest.raises(InputError, match=r"'any\.seg\.nrrd' is no whole segmentation file"):
        check(tmp_path, HEADER.replace(old, new, 1))


@pytest.mark.parametrize(
    "data", [b"", DATA[:-1], DATA[:10], bytes(len(DATA)), DATA[:-6] + bytes(6), gzip.compress(bytes(23), mtime=0)]
)
def test_damaged_voxels(tmp_path, data):
    with pytest.raises(InputError):
        check(tmp_path, data=data)


def test_an_unfinished_header(tmp_path):
    path = tmp_path / "any.seg.nrrd"
    path.write_bytes(HEADER.encode())
    with pytest.raises(InputError, match="no complete header"):
        require_sound_nrrd(path)
