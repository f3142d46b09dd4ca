"""`mcp`: the SDK's own client drives the server in memory; folders keep agents in, and every error has a type."""

import asyncio
import base64
import os
import random
import socket
import sys
import threading
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib import errors
from FoundationSegLib.commands.mcp import FolderCalls
from FoundationSegLib.errors import InputError
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.io.segmentations import read_mask_prompt
from FoundationSegLib.mcp_server import make_server, one_thread, serve_loopback
from FoundationSegLib.requests.agent_calls import TOOLS, AgentAnswer, AllowedFolders
from Testing.unit.commands.conftest import BOXES, add_card, block_mask, ct_array
from Testing.unit.fakes import on_image

mcp = pytest.importorskip("mcp", reason="the package mcp is not installed", exc_type=ImportError)
httpx = pytest.importorskip("httpx2", reason="the package mcp is not installed", exc_type=ImportError)
streamable_http_client = pytest.importorskip("mcp.client.streamable_http").streamable_http_client


class Agent:
    """A client of the SDK; each call returns the structured answer, or raises an error's type and text."""

    def __init__(self, client):
        self.client = client
        self.pictures = []

    async def __call__(self, tool, **arguments):
        result = await self.client.call_tool(tool, arguments)
        self.pictures = [base64.b64decode(c.data) for c in result.content if c.type == "image"]
        if result.is_error:
            error = result.structured_content["error"]
            assert issubclass(getattr(errors, error["type"]), errors.FoundationSegError), error
            raise AgentError(f"{error['type']}: {error['message']}")
        return result.structured_content


class AgentError(Exception):
    pass


@pytest.fixture
def serve(desk):
    """Runs an agent's work on a server of the desk's folder."""

    def run(work):
        options = Namespace(device="cpu", connect=desk.connect, catalogue=desk.catalogue)

        async def connect(server):
            async with mcp.Client(server) as client:
                await work(Agent(client))

        folders = AllowedFolders.of((desk.folder,))
        with one_thread() as executor, FolderCalls(options, folders).closing(executor) as calls:
            asyncio.run(connect(make_server(calls.perform, executor)))

    return run


def boxes(*names):
    return [{"name": name, "prompts": [{"type": "box", "corners": BOXES[name]}]} for name in names]


def test_an_agent_drives_a_whole_case(desk, serve):
    asked = {"image": "desk/ct.nrrd"}

    async def work(agent):
        tools = (await agent.client.list_tools()).tools
        assert {tool.name for tool in tools} == set(TOOLS) and all(tool.description for tool in tools)
        assert all(tool.input_schema["additionalProperties"] is False for tool in tools)
        assert (await agent("list_images"))["images"] == ["desk/ct.nrrd"]
        assert [model["id"] for model in (await agent("list_models", task="segment"))["models"]] == ["fake"]
        assert (await agent("show_model", model="fake"))["good_at"] == "tests"
        answer = await agent("segment_by_prompts", **asked, model="fake", space="ijk", segments=boxes("Left", "Right"))
        assert answer["status"] == "done" and [row["name"] for row in answer["segments"]] == ["Left", "Right"]
        rows = (await agent("measure", **asked))["segments"]
        assert {row["name"]: row["voxels"] for row in rows} == {
            name: int(block_mask(name).sum()) for name in ("Left", "Right")
        }
        assert rows[0]["volume_ml"] == pytest.approx(rows[0]["voxels"] * 2 / 1000) and rows[0]["model"] == "fake"
        await agent("render", **asked, width=400, height=300)
        assert agent.pictures[0].startswith(b"\x89PNG")
        assert (await agent("export", **asked, file="desk/both.seg.nrrd"))["file"] == "desk/both.seg.nrrd"
        answer = await agent("undo", **asked)
        assert answer == {"undone": True, "segments": []}, "both came with one call"
        assert not (await agent("undo", **asked))["undone"]
        await agent("segment_by_prompts", **asked, model="fake", space="ijk", segments=boxes("Left"))
        await agent("export", **asked, file="desk/both.seg.nrrd")
        with pytest.raises(AgentError, match=r"OutputError.*ct.nrrd exists"):
            await agent("export", **asked, file="desk/ct.nrrd")

    serve(work)
    mask = on_image(read_volume(desk.image), *read_mask_prompt(desk.folder / "both.seg.nrrd", "Left"))
    assert np.array_equal(mask, block_mask("Left"))


def test_words_and_classes_go_to_models_that_understand_them(desk, serve):
    add_card(desk, "words", ('prompts = ["box"]', 'prompts = ["text"]'), ("dimensions = [2]", "dimensions = [3]"))

    async def work(agent):
        with pytest.raises(AgentError, match=r"PromptError.*does not understand text"):
            await agent("segment_by_words", image="desk/ct.nrrd", model="fake", phrases=["liver"])
        with pytest.raises(AgentError, match=r"PromptError.*asked for twice"):
            await agent("segment_by_words", image="desk/ct.nrrd", model="words", phrases=["liver", "liver"])
        with pytest.raises(AgentError, match="CheckpointError"):
            await agent("segment_by_words", image="desk/ct.nrrd", model="words", phrases=["liver"])
        with pytest.raises(AgentError, match="to segment with, not to classify"):
            await agent("classify", image="desk/ct.nrrd", model="fake", labels=["liver", "kidney"])
        with pytest.raises(AgentError, match="masks in files"):
            prompt = {"type": "mask", "file": "/etc/passwd", "segment": "Liver"}
            segments = [{"name": "Liver", "prompts": [prompt]}]
            await agent("segment_by_prompts", image="desk/ct.nrrd", model="fake", segments=segments)

    serve(work)


@pytest.fixture
def secret(desk):
    """An image outside of the folder, and ways that lead there from inside."""
    outside = desk.folder.parent / "outside"
    outside.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(ct_array()), str(outside / "secret.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(ct_array()), str(outside / "secret.mhd"))
    (desk.folder / "link.nrrd").symlink_to(outside / "secret.nrrd")
    (desk.folder / "folder").symlink_to(outside)
    (desk.folder / "out.seg.nrrd").symlink_to(outside / "written.seg.nrrd")
    header = (outside / "secret.mhd").read_text().replace("secret.raw", str(outside / "secret.raw"))
    (desk.folder / "absolute.mhd").write_text(header)
    (desk.folder / "relative.mhd").write_text(header.replace(str(outside), "../outside"))
    (desk.folder / "beside.mhd").write_text(header.replace(str(outside / "secret.raw"), "beside.raw"))
    (desk.folder / "beside.raw").symlink_to(outside / "secret.raw")
    nrrd = "NRRD0004\ntype: short\ndimension: 3\nsizes: 12 10 6\nencoding: raw\nendian: little\n"
    (desk.folder / "detached.nhdr").write_text(f"{nrrd}data file: {outside / 'secret.raw'}\n")
    (desk.folder / "detached.nrrd").write_text(f"{nrrd}DATAFILE:  ../outside/secret.raw\n")
    sitk.WriteImage(sitk.GetImageFromArray(ct_array()[:1]), str(outside / "secret.dcm"))
    for folder in (desk.folder / "series", desk.folder / "deep" / "below"):
        folder.mkdir(parents=True)
        (folder / "1.dcm").symlink_to(outside / "secret.dcm")
    return outside


WAYS_OUT = (
    *("desk/link.nrrd", "desk/folder/secret.nrrd", "desk/../outside/secret.nrrd", "../outside/secret.nrrd", "desk/.."),
    *("desk/absolute.mhd", "desk/relative.mhd", "desk/beside.mhd", "desk/detached.nhdr", "desk/detached.nrrd"),
    *(
        "desk/series",
        "desk/deep",
        "/etc/passwd",
        "//server/share/ct.nrrd",
        r"\\server\share\ct.nrrd",
        r"desk\..\outside\secret.nrrd",
    ),
    *(
        "C:/ct.nrrd",
        "C:ct.nrrd",
        "file:///etc/passwd",
        "DESK/ct.nrrd",
        "desk",
        "desk/",
        "desk//ct.nrrd",
        "desk/./ct.nrrd",
    ),
    *("desk/ct.nrrd\x00.png", "desk/ct.nrrd ", "desk/nul.", "", ".", "~", "~/ct.nrrd", "desk/" + "x" * 900, "a" * 2000),
)


def test_no_name_leads_out_of_the_folders(desk, serve, secret):
    async def work(agent):
        assert (await agent("list_images"))["images"] and "desk/link.nrrd" not in (await agent("list_images"))["images"]
        for way in WAYS_OUT:
            with pytest.raises(AgentError, match=r"(Input|Document)Error"):
                await agent("measure", image=way)
            with pytest.raises(AgentError, match=r"(Input|Document|Output)Error"):
                await agent("export", image="desk/ct.nrrd", file=f"{way}/x.seg.nrrd")
        await agent("segment_by_prompts", image="desk/ct.nrrd", model="fake", space="ijk", segments=boxes("Left"))
        for way in (*WAYS_OUT, "desk/out.seg.nrrd", "desk/folder/new.seg.nrrd", "desk/new/x.seg.nrrd"):
            with pytest.raises(AgentError, match=r"(Input|Document|Output)Error"):
                await agent("export", image="desk/ct.nrrd", file=way)

    before = sorted(secret.iterdir())
    serve(work)
    assert sorted(secret.iterdir()) == before


def test_fuzzed_calls_get_typed_errors_and_stay_inside(desk, serve, secret, full, bar):
    chance, count = random.Random(23), 1000 if full else 100
    scraps = (
        *WAYS_OUT,
        None,
        True,
        -1,
        0,
        2**70,
        1e308,
        "",
        "fake",
        "desk/ct.nrrd",
        "Left",
        [],
        {},
        ["x"],
        [[1]],
        "💥",
    )
    good = {
        "image": "desk/ct.nrrd",
        "model": "fake",
        "segments": boxes("Left"),
        "space": "ijk",
        "file": "desk/out-{}.seg.nrrd",
        "width": 200,
        "height": 200,
        "labels": ["a", "b"],
        "phrases": ["liver"],
        "classes": ["liver"],
        "task": "any",
    }

    def broken(value, depth=0):
        """A value with a part that is another."""
        if depth < 5 and isinstance(value, list | dict) and value and chance.random() < 0.8:
            key = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
            copy = value.copy()
            copy[key] = broken(value[key], depth + 1)
            return copy
        return chance.choice(scraps)

    async def work(agent):
        failed = 0
        for number in range(count):
            tool = chance.choice(list(TOOLS))
            arguments = {name: value for name, value in good.items() if name in TOOLS[tool].__annotations__}
            if "file" in arguments:
                arguments["file"] = arguments["file"].format(number)
            for _ in range(chance.randint(0, 2)):
                name = chance.choice([*arguments, "image", "extra"])
                arguments[name] = broken(arguments.get(name))
            try:
                await agent(chance.choice((tool, tool, tool, tool + "x")), **arguments)
            except AgentError as error:
                failed += 1
                assert str(desk.folder.parent) not in str(error)
        assert 0 < failed < count
        bar("mcp: calls fuzzed, typed errors only, none outside", count, "1000")

    before = {path: path.stat().st_mtime_ns for path in secret.iterdir()}
    elsewhere = [set(folder.iterdir()) for folder in (Path("/"), desk.folder.parent)]
    serve(work)
    assert {path: path.stat().st_mtime_ns for path in secret.iterdir()} == before
    assert [set(folder.iterdir()) for folder in (Path("/"), desk.folder.parent)] == elsewhere


def test_loopback_lets_in_only_who_knows_the_token():
    over, ports = threading.Event(), []

    def perform(tool, call):
        if tool == "measure":
            raise InputError("no such image")
        return AgentAnswer({"images": ["a"]})

    async def work():
        while not ports:
            await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{ports[0]}/mcp"
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "right"}):
            async with httpx.AsyncClient(headers=headers) as http:
                assert (await http.post(url, json={})).status_code == 401
        async with httpx.AsyncClient(headers={"Authorization": "Bearer right"}) as http:
            evil = {"Host": "evil.example", "Accept": "application/json"}
            assert (await http.post(url, json={}, headers=evil)).status_code in (400, 403, 421)
            async with mcp.Client(streamable_http_client(url, http_client=http)) as client:
                assert await Agent(client)("list_images") == {"images": ["a"]}
                with pytest.raises(AgentError, match="InputError: no such image"):
                    await Agent(client)("measure", image="b")

    def use():
        try:
            asyncio.run(work())
        except BaseException as error:
            failures.append(error)
        over.set()

    failures = []
    with one_thread() as executor:
        thread = threading.Thread(target=use)
        thread.start()
        serve_loopback(make_server(perform, executor), 0, "right", ports.append, over.is_set)
        thread.join()
    assert not failures, failures


def test_the_command_serves_on_standard_streams(desk):
    """The program as an agent starts it: nothing but the protocol on standard output."""
    from Testing.unit.commands.fake_program import MODULE

    line = ["-m", MODULE, "program", str(desk.cards), "", "mcp", "--folder", str(desk.folder)]
    program = mcp.StdioServerParameters(command=sys.executable, args=line, env=dict(os.environ))

    async def work():
        async with mcp.Client(mcp.stdio_client(program)) as client:
            assert (await Agent(client)("list_images"))["images"] == ["desk/ct.nrrd"]
            segments = boxes("Left")
            call = {"image": "desk/ct.nrrd", "model": "fake", "space": "ijk", "segments": segments}
            assert (await Agent(client)("segment_by_prompts", **call))["segments"][0]["voxels"] == 64

    asyncio.run(work())


def test_the_command_refuses_what_it_cannot_serve(desk):
    assert desk.run("mcp") == 2
    assert desk.run("mcp", "--folder", str(desk.folder / "none")) == 2
    desk.assert_refused(2, "the folder none does not exist")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert desk.run("mcp", "--folder", str(desk.folder), "--http", str(port)) == 1
    assert f"agents cannot be served on port {port}: " in desk.err
