"""`pacs` and `batch --pacs` on a real Orthanc: nothing twice, nothing missing, however the connection breaks."""

import json
import logging
import shutil
import ssl
import subprocess
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import numpy as np
import pytest

from FoundationSegLib.commands import pacs
from FoundationSegLib.commands.cli import main
from FoundationSegLib.errors import ArchiveError, InputError
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.io.segmentations import read_mask_prompt
from Testing.unit.cohorts import archive
from Testing.unit.cohorts.conftest import BLOCK, SHAPE
from Testing.unit.fakes import on_image

pytest.importorskip("dicomweb_client", reason="the package dicomweb-client is not installed")
pytest.importorskip("highdicom", reason="the package highdicom is not installed")
pytestmark = pytest.mark.xdist_group("cohorts")


@pytest.fixture(scope="session")
def orthanc_port(tmp_path_factory):
    found = archive.find_orthanc()
    if found is None:
        pytest.skip("Orthanc or its DICOMweb plug-in is missing: apt-get install orthanc orthanc-dicomweb")
    with archive.orthanc(tmp_path_factory.mktemp("orthanc"), *found) as port:
        yield port


@pytest.fixture
def connection(orthanc_port, monkeypatch):
    for name, value in ((pacs.USER, archive.USER), (pacs.PASSWORD, archive.PASSWORD)):
        monkeypatch.setenv(name, value)
    breaking = archive.BreakingConnection(orthanc_port, 23, 30_000)
    yield breaking
    breaking.close()


def run(*arguments):
    try:
        return main(["pacs", *map(str, arguments)])
    except SystemExit as error:
        return int(error.code or 0)


def test_studies_go_in_are_segmented_and_stored_back_once(cohort, connection, capfd, caplog, full, bar):
    caplog.set_level(logging.DEBUG)
    count, breaks = (100, 20) if full else (3, 3)
    desk, url = cohort(0), f"http://127.0.0.1:{connection.port}/dicom-web"
    studies = [archive.write_study(desk.folder / "in", 1000 * full + number) for number in range(count)]
    connection.breaks_left = breaks // 3
    assert run("send", url, desk.folder / "in") == 0, capfd.readouterr().err
    connection.breaks_left += breaks - breaks // 3
    named = [part for study in studies for part in ("--study", study)]
    for is_second in (False, True):
        assert desk.run("--pacs", url, *named, more=("--format", "dcm", "--send")) == 0, desk.err
        assert (", 0 of them were sent now" in desk.err) == is_second and archive.PASSWORD not in desk.err
    direct = pacs.open_archive(url)
    missing = twice = 0
    for study in studies:
        rows = direct.series(study)
        stored = [row for row in rows if row["modality"] == "SEG"]
        missing += not stored
        twice += len(stored) > 1 or any(row["objects"] != 1 for row in stored)
        (images,) = [row for row in rows if row["modality"] == "CT"]
        assert images["objects"] == SHAPE[0]
        (uid,) = direct.objects(study, stored[0]["series"])
        direct.fetch(study, stored[0]["series"], uid, desk.folder / f"{uid}.dcm")
        volume = read_volume(desk.folder / "in" / study)
        mask = on_image(volume, *read_mask_prompt(desk.folder / f"{uid}.dcm", "Block"))
        expected = np.zeros(SHAPE, bool)
        expected[BLOCK] = True
        assert np.array_equal(mask, expected)
    bar("archive: studies missing or stored twice", missing + twice, "0")
    bar("archive: times that the connection broke", connection.breaks, str(breaks))
    assert missing + twice == 0 and connection.breaks == breaks
    assert archive.PASSWORD not in caplog.text


def test_find_shows_no_patient_unless_asked(connection, tmp_path, capfd):
    url = f"http://127.0.0.1:{connection.port}/dicom-web"
    study = archive.write_study(tmp_path / "in", 7000)
    assert run("send", url, tmp_path / "in") == 0
    capfd.readouterr()
    assert run("find", url, "--patient", "secret-7000", "--json") == 0
    out = capfd.readouterr().out
    assert [(row["study"], row["objects"]) for row in json.loads(out)] == [(study, SHAPE[0])] and "secret" not in out
    assert (
        run("find", url, "--patient", "secret-7000", "--with-patient") == 0 and "secret-7000" in capfd.readouterr().out
    )
    assert run("find", url, "--study", study) == 0 and "CT" in capfd.readouterr().out
    assert run("get", url, "--study", study, "--output", tmp_path / "out") == 0
    assert "1 series is in out" in capfd.readouterr().err
    assert len(list((tmp_path / "out" / study).glob("*/*.dcm"))) == SHAPE[0]
    assert run("get", url, "--study", "1.2.3", "--output", tmp_path / "out") == 2
    assert "no study 1.2.3" in capfd.readouterr().err


def test_a_wrong_password_is_refused_and_not_shown(connection, monkeypatch, capfd):
    monkeypatch.setenv(pacs.PASSWORD, "wrong-word")
    assert run("find", f"http://127.0.0.1:{connection.port}/dicom-web", "--patient", "secret-id") == 1
    err = capfd.readouterr().err
    assert "refuses access (401)" in err and "wrong-word" not in err and "secret-id" not in err


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ftp://host/x", "https://HOST/PATH"),
        ("host/dicom-web", "https://HOST/PATH"),
        ("https://me:secret@host/x", "no user, password or query"),
        ("https://host/x?token=secret", "no user, password or query"),
        ("http://host/x", "is not encrypted"),
    ],
)
def test_addresses_that_would_tell_too_much_are_refused(url, text):
    with pytest.raises(InputError, match=text) as caught:
        pacs.open_archive(url)
    assert "secret" not in str(caught.value)


def test_credentials_come_from_the_environment_or_the_keyring(monkeypatch):
    def session(**environ):
        return pacs.open_archive("https://host/x", environ=environ).client._session

    class KeyringError(Exception):
        pass

    asked = []

    def get_credential(service, _):
        asked.append(service)
        if len(asked) > 1:
            raise KeyringError
        return types.SimpleNamespace(username="me", password="word")

    errors = types.SimpleNamespace(KeyringError=KeyringError)
    monkeypatch.setitem(sys.modules, "keyring", types.SimpleNamespace(get_credential=get_credential, errors=errors))
    assert session(**{pacs.TOKEN: "t"}).headers["Authorization"] == "Bearer t"
    assert session(**{pacs.USER: "u", pacs.PASSWORD: "p"}).auth == ("u", "p") and not asked
    assert session().auth == ("me", "word") and asked == ["FoundationSeg PACS host"]
    assert session().auth is None, "a keyring that is locked has none"
    assert session().verify is True


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is missing")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    line = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*line, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(ArchiveError, match=r"certificate of 127.0.0.1 cannot be verified"):
            pacs.open_archive(f"https://127.0.0.1:{server.server_port}/x").series("1.2.3")
    finally:
        server.shutdown()
        server.server_close()


class CutHeaders(BaseHTTPRequestHandler):
    """Breaks off in the headers of its first answer, and finds a series in the second one."""

    answers: ClassVar = [b"HTTP/1.1 200 OK\r\nContent-Ty", b'[{"0020000E": {"vr": "UI", "Value": ["1.2"]}}]', b"[]"]

    def do_GET(self):
        answer = self.answers.pop(0)
        if answer.startswith(b"["):
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
        self.wfile.write(answer)


def test_an_answer_that_is_cut_off_in_its_headers_is_no_empty_one():
    server = HTTPServer(("127.0.0.1", 0), CutHeaders)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        (row,) = pacs.open_archive(f"http://127.0.0.1:{server.server_port}/x").series("1.2.3")
        assert row["series"] == "1.2"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("uid", ["../../x", "1.2.3/..", "", "1..2", ".1", "1" * 65, "1.2\n3"])
def test_what_is_no_uid_names_no_file(uid):
    with pytest.raises(InputError, match="no DICOM UID"):
        pacs.require_uid(uid)


def test_what_cannot_be_sent_back_is_said_before_anything_is_fetched(cohort):
    desk = cohort(1)
    assert desk.run("--pacs", "https://host/x", "--study", "1.2", more=("--send",)) == 2 and "--format dcm" in desk.err
    assert desk.run("--pacs", "https://host/x") == 2 and "--study UID" in desk.err
    assert desk.run(desk.images, more=("--pacs", "https://host/x", "--study", "1.2")) == 2
