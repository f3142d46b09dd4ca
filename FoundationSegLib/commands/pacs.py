"""`pacs`: find, fetch and store DICOM objects in an archive over DICOMweb, as `batch --pacs` does.

Requests are repeated where a connection breaks. Objects are known by their UIDs: what is there is not sent again, and
what was fetched is not fetched again. Messages name the archive's host alone: no patient, no query, no password.
"""

import argparse
import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..errors import ArchiveError, InputError, OutputError, counted, package_missing, write_failure
from ..folders import replace_atomically
from ..progress import ProgressReport
from .arguments import number_within, path_argument
from .outputs import ProgressLine, print_result, say

T = TypeVar("T")

USER, PASSWORD, TOKEN = (f"FOUNDATIONSEG_PACS_{name}" for name in ("USER", "PASSWORD", "TOKEN"))
_SERVICE = "FoundationSeg PACS"  # of the keyring, with the host behind
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")
_PAUSES_S = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0)  # between repetitions of a request
_TIMEOUT_S = (10.0, 120.0)  # to connect, and without a byte
_REPEATED = (408, 429, 500, 502, 503, 504)
_NO_IMAGES = {"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "DOC", "OT", "ECG", "AU"}
# Keywords of the elements that are shown, and the names that they go by here; the patient's only on wish.
_STUDY = {
    "StudyInstanceUID": "study",
    "StudyDate": "date",
    "ModalitiesInStudy": "modalities",
    "StudyDescription": "description",
    "NumberOfStudyRelatedSeries": "series",
    "NumberOfStudyRelatedInstances": "objects",
}
_PATIENT = {"PatientID": "patient", "PatientName": "name", "PatientBirthDate": "birth_date"}
_SERIES = {
    "SeriesInstanceUID": "series",
    "Modality": "modality",
    "SeriesDescription": "description",
    "NumberOfSeriesRelatedInstances": "objects",
}
# The options of `find` and what they are compared with; a study's date may be a range.
_FILTERS = {
    "patient": "PatientID",
    "name": "PatientName",
    "date": "StudyDate",
    "modality": "ModalitiesInStudy",
    "accession": "AccessionNumber",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    find = actions.add_parser("find", help="list studies, or the series of a study")
    get = actions.add_parser("get", help="fetch studies or a series")
    send = actions.add_parser("send", help="store DICOM files and folders")
    for action, run in ((find, _find), (get, _get), (send, _send)):
        action.add_argument("url", metavar="URL", help="the archive's DICOMweb address: https://HOST/PATH")
        add_connection_arguments(action)
        action.add_argument("--debug", action="store_true", help="show tracebacks")
        action.set_defaults(run=run)
    for name in _FILTERS:
        find.add_argument(f"--{name}", metavar="VALUE", help="only studies of it; * stands for any letters")
    find.add_argument("--study", metavar="UID", help="list the series of this study")
    find.add_argument("--limit", metavar="N", type=number_within(int, 1, 10_000), default=100, help="at most (100)")
    find.add_argument("--with-patient", action="store_true", help="also show the patient")
    find.add_argument("--json", action="store_true", help="as JSON")
    get.add_argument("--study", metavar="UID", action="append", required=True, help="again for another study")
    get.add_argument("--series", metavar="UID", help="only this series")
    get.add_argument("--output", metavar="FOLDER", type=path_argument, required=True, help="where it goes")
    send.add_argument("files", metavar="FILE", nargs="+", type=path_argument, help="DICOM files, or folders of them")


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `batch` has, too."""
    text = "allow an archive without encryption (http://) on another computer"
    parser.add_argument("--insecure", action="store_true", help=text)


def _find(options: argparse.Namespace) -> None:
    archive = open_archive(options.url, insecure=options.insecure)
    if options.study:
        rows = archive.series(options.study)
    else:
        filters = {_FILTERS[name]: getattr(options, name) for name in _FILTERS if getattr(options, name)}
        rows = archive.studies(filters, int(options.limit), with_patient=options.with_patient)
    lines = ["  ".join(str(value) for value in row.values() if value != "") for row in rows]
    print_result(rows, lines or ["nothing was found"], as_json=options.json)


def _get(options: argparse.Namespace) -> None:
    archive = open_archive(options.url, insecure=options.insecure)
    with ProgressLine() as line:
        folders = fetch_studies(archive, options.study, options.output, options.series, line)
    say(f"{len(folders)} series {'is' if len(folders) == 1 else 'are'} in {options.output.name}")


def _send(options: argparse.Namespace) -> None:
    archive = open_archive(options.url, insecure=options.insecure)
    paths = [path for named in options.files for path in _files(named)]
    with ProgressLine() as line:
        send_files(archive, paths, line)


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(below for below in path.rglob("*") if below.is_file() and not below.name.startswith("."))
    else:
        yield path


def fetch_studies(
    archive: "Archive", studies: Sequence[str], folder: Path, series: str | None, line: ProgressLine
) -> list[Path]:
    """Fetch the images of studies, or one of their series, to ``folder/STUDY/SERIES``; what is there is left alone.

    Segmentations and other objects without images are fetched only where their series is named.

    Returns:
        The folders of the series.

    Raises:
        ArchiveError: the archive cannot be reached, refuses, or sends something else.
        InputError: there is no such study or series.
        OutputError: the disk does not take it.
    """
    folders = []
    for study in dict.fromkeys(studies):
        rows = archive.series(study)
        chosen = [r for r in rows if (r["series"] == series if series else r["modality"] not in _NO_IMAGES)]
        if not chosen:
            raise InputError(f"the archive has no {'such series' if series else 'images'} in the study {study}")
        for row in chosen:
            target = folder / study / row["series"]
            try:
                target.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"the folder {folder.name} cannot be made: {write_failure(error)}") from error
            uids = archive.objects(study, row["series"])
            for n, uid in enumerate(uids):
                line.show(ProgressReport("fetch", n, len(uids), row["series"][-12:]))
                archive.fetch(study, row["series"], uid, target / f"{uid}.dcm")
            folders.append(target)
    return folders


def send_files(archive: "Archive", paths: Sequence[Path], line: ProgressLine) -> int:
    """Store DICOM files; one that the archive has is not sent again. Returns how many were sent.

    Raises:
        ArchiveError: the archive cannot be reached, refuses an object, or does not have it in the end.
        InputError: a file is no DICOM object.
    """
    say(f"storing {counted(len(paths), 'DICOM object')} on {archive.host}; they carry the data of their patients")
    sent = 0
    for n, path in enumerate(paths):
        line.show(ProgressReport("send", n, len(paths)))
        sent += archive.store(path)
    line.clear()
    say(f"{len(paths)} are in the archive, {sent} of them were sent now")
    return sent


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that speaks DICOMweb. Made by :func:`open_archive`.

    Attributes:
        host: its name, for messages.
        client: a ``dicomweb_client.DICOMwebClient``.
        pauses_s: the waiting times between the repetitions of a request.
    """

    host: str
    client: Any
    pauses_s: Sequence[float] = _PAUSES_S

    def studies(self, filters: Mapping[str, str], limit: int, *, with_patient: bool) -> list[dict[str, Any]]:
        """List studies; ``filters`` by DICOM keywords."""
        shown = {**_STUDY, **(_PATIENT if with_patient else {})}
        fields = list(shown)
        found = self._repeat(
            lambda: self.client.search_for_studies(search_filters=dict(filters), fields=fields, limit=limit)
        )
        return [_row(item, shown) for item in found]

    def series(self, study: str) -> list[dict[str, Any]]:
        """List the series of a study."""
        require_uid(study)
        found = self._repeat(lambda: self.client.search_for_series(study, fields=list(_SERIES), get_remaining=True))
        rows = [_row(item, _SERIES) for item in found]
        if not rows:
            raise InputError(f"{self.host} has no study {study}")
        for row in rows:
            require_uid(row["series"])  # it names a folder
        return rows

    def objects(self, study: str, series: str) -> list[str]:
        """List the UIDs of the objects of a series."""
        found = self._repeat(lambda: self.client.search_for_instances(study, series, get_remaining=True))
        uids = [_row(item, {"SOPInstanceUID": "uid"})["uid"] for item in found]
        for uid in uids:
            require_uid(uid)  # it names a file
        return list(dict.fromkeys(uids))

    def has(self, study: str, series: str, uid: str) -> bool:
        """True where the archive has an object."""
        filters = {"SOPInstanceUID": uid}
        found = self._repeat(lambda: self.client.search_for_instances(study, series, search_filters=filters), True)
        return any(_row(item, {"SOPInstanceUID": "uid"})["uid"] == uid for item in found or ())

    def fetch(self, study: str, series: str, uid: str, path: Path) -> None:
        """Fetch an object to a file, as it is stored; nothing is done where the file is there."""
        if path.exists():
            return
        every_syntax = (("application/dicom", "*"),)
        dataset = self._repeat(lambda: self.client.retrieve_instance(study, series, uid, media_types=every_syntax))
        if str(dataset.get("SOPInstanceUID", "")) != uid:
            raise ArchiveError(f"{self.host} sent another object than was asked for; ask its administrator")
        with replace_atomically(path) as temporary:
            dataset.save_as(temporary, enforce_file_format=True)

    def store(self, path: Path) -> bool:
        """Store a file unless the archive has its object; True where it was sent."""
        import pydicom

        try:
            dataset = pydicom.dcmread(path)
            uids = [str(dataset[name].value) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
        except (OSError, pydicom.errors.InvalidDicomError, KeyError) as error:
            raise InputError(f"{path.name} is no DICOM object that an archive takes") from error
        if self.has(*uids):
            return False
        self._repeat(lambda: self._store(dataset, path.name))
        if not self.has(*uids):
            raise ArchiveError(f"{self.host} took {path.name} and does not have it; ask its administrator")
        return True

    def _store(self, dataset: Any, name: str) -> None:
        answer = self.client.store_instances([dataset])
        failed = answer.get("FailedSOPSequence", ())
        if failed:
            reason = failed[0].get("FailureReason", "no reason given")
            raise ArchiveError(f"{self.host} refuses {name} (reason {reason}); ask its administrator")

    def _repeat(self, ask: Callable[[], T], may_be_missing: bool = False) -> T | Any:
        """Ask, and again where the connection breaks or the archive is busy."""
        import requests

        for pause_s in (*self.pauses_s, None):
            try:
                return ask()
            except requests.exceptions.SSLError as error:
                text = f"the certificate of {self.host} cannot be verified; set REQUESTS_CA_BUNDLE to your hospital's"
                raise ArchiveError(text) from error
            except requests.HTTPError as error:
                status = error.response.status_code
                if status == 404 and may_be_missing:
                    return None
                if status in (401, 403):
                    text = f"{self.host} refuses access ({status}); set {USER} and {PASSWORD}, {TOKEN}, or the keyring"
                    raise ArchiveError(text) from None
                if status not in _REPEATED or pause_s is None:
                    raise ArchiveError(f"{self.host} answers with the status {status}") from None
            except (requests.RequestException, ValueError, EOFError, OSError) as error:
                # ValueError: of what was cut off in its midst.
                if pause_s is None:
                    raise ArchiveError(f"{self.host} cannot be reached: {type(error).__name__}") from None
            time.sleep(pause_s)
        raise AssertionError


def _row(item: Mapping[str, Any], shown: Mapping[str, str]) -> dict[str, Any]:
    """Read elements of DICOM JSON by their keywords."""
    from pydicom.datadict import tag_for_keyword

    row = {}
    for keyword, name in shown.items():
        values = item.get(f"{tag_for_keyword(keyword):08X}", {}).get("Value") or [""]
        texts = [value.get("Alphabetic", "") if isinstance(value, Mapping) else value for value in values]
        row[name] = texts[0] if len(texts) == 1 else ", ".join(map(str, texts))
    return row


def require_uid(uid: str) -> None:
    """Make sure that a text is a DICOM UID, which is harmless as the name of a file.

    Raises:
        InputError: it is none.
    """
    if not isinstance(uid, str) or not _UID.fullmatch(uid):
        raise InputError(f"{str(uid)[:70]!a} is no DICOM UID; 'foundationseg pacs find' lists them")


def open_archive(url: str, *, insecure: bool = False, environ: Mapping[str, str] = os.environ) -> Archive:
    """Open an archive. Nothing is asked yet.

    Raises:
        InputError: the address is none, has a password in it, or is not encrypted.
        PackageMissingError: ``dicomweb-client`` is not installed.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise InputError("the address of an archive has the form https://HOST/PATH")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(f"the address may hold no user, password or query; set {USER} and {PASSWORD}, or the keyring")
    if parts.scheme == "http" and host not in _LOOPBACK and not insecure:
        raise InputError(f"{host} is not encrypted: use https://, or --insecure if the network is your own")
    try:
        import requests
        from dicomweb_client.api import DICOMwebClient
    except ImportError as error:
        raise package_missing("an archive", "dicomweb-client") from error
    session = requests.Session()
    if environ.get(TOKEN):
        session.headers["Authorization"] = f"Bearer {environ[TOKEN]}"
    else:
        session.auth = _credentials(host, environ)

    def require_whole(response: Any, **_: Any) -> None:
        """Take an answer whose headers were cut off for a broken connection: it would read as "nothing found"."""
        has_length = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
        if response.status_code == 200 and not has_length and not response.content:
            raise requests.ConnectionError("the answer was cut off")

    session.hooks["response"].append(require_whole)
    client = DICOMwebClient(url.rstrip("/"), session=session, timeout=_TIMEOUT_S)
    client.set_http_retry_params(retry=False)
    return Archive(host, client)


def _credentials(host: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Find user and password in the environment, else in the keyring of the system; None where there are none."""
    if environ.get(USER):
        return environ[USER], environ.get(PASSWORD, "")
    with contextlib.suppress(ImportError):
        import keyring

        with contextlib.suppress(keyring.errors.KeyringError, RuntimeError):
            credential = keyring.get_credential(f"{_SERVICE} {host}", None)
            return (credential.username, credential.password) if credential is not None else None
    return None
