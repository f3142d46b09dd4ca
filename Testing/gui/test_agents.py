"""Agents in the open scene: a real server in a process of its own, the SDK's client, and the panel's own undo."""

import asyncio
import sys
import threading

import pytest

from FoundationSegLib.worker.process_client import ProcessClient
from Testing.slicer_standin.dialogs import press

mcp = pytest.importorskip("mcp", reason="the package mcp is not installed", exc_type=ImportError)
BOX = {"type": "box", "corners": [[4, 5, 3], [12, 14, 3]]}


@pytest.fixture
def agents(at_panel):
    from FoundationSegPanel.computer_dialogs import AgentsPart

    panel = at_panel.panel
    part = AgentsPart(at_panel.ui, panel.state, panel.report, ProcessClient)
    yield part
    part.stop()


class Agent:
    """The SDK's client in a thread, while the panel's timers run; it has what **Copy** gives."""

    def __init__(self, panel):
        self.panel = panel

    def __call__(self, *calls):
        results = []
        self.panel.desk.click(self.panel.ui.agentsCopyButton)
        address, header = sys.modules["qt"].QGuiApplication.clipboard().text().splitlines()

        async def work():
            import httpx2
            from mcp.client.streamable_http import streamable_http_client

            async with httpx2.AsyncClient(headers={"Authorization": header.removeprefix("Authorization: ")}) as http:
                await use(mcp.Client(streamable_http_client(address, http_client=http)))

        async def use(client):
            async with client:
                for tool, arguments in calls:
                    results.append(await client.call_tool(tool, arguments))

        thread = threading.Thread(target=lambda: asyncio.run(work()))
        thread.start()
        self.panel.desk.wait_until(lambda: not thread.is_alive(), seconds=300)
        thread.join()
        return [result.structured_content for result in results]


def test_calls_are_shown_and_undone_like_clicks(at_panel, agents, tmp_path):
    from dataclasses import replace

    installer = at_panel.panel.installer
    agents.start()
    assert agents.is_serving and at_panel.ui.agentsFrame.isVisibleTo(at_panel.ui.segmentTab)
    at_panel.desk.wait_until(lambda: at_panel.ui.agentsCopyButton.enabled, seconds=300)
    agent = Agent(at_panel)
    prompts = {"image": "CT", "model": "lite-medsam", "space": "ijk", "segments": [{"name": "Liver", "prompts": [BOX]}]}
    images, models, answer, rows, no_folder, unknown = agent(
        ("list_images", {}),
        ("list_models", {"task": "segment"}),
        ("segment_by_prompts", prompts),
        ("measure", {"image": "CT"}),
        ("export", {"image": "CT", "file": "out/liver.seg.nrrd"}),
        ("segment_by_prompts", prompts | {"image": "MR"}),
    )
    assert images == {"images": ["CT"]} and "lite-medsam" in [model["id"] for model in models["models"]]
    assert answer["status"] == "done" and answer["segments"][0]["voxels"] == at_panel.voxels("Liver") > 0
    assert rows["segments"] == answer["segments"]
    assert no_folder["error"]["type"] == unknown["error"]["type"] == "InputError"
    assert "MR" in at_panel.ui.agentsLabel.text and "segment_by_prompts: done" in at_panel.ui.agentsLabel.toolTip
    assert at_panel.names() == ["Liver"]
    at_panel.desk.click(at_panel.ui.undoButton)
    assert at_panel.names() == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "taken.seg.nrrd").touch()
    installer.change_settings(replace(installer.settings, agent_folder=str(tmp_path / "out")))
    _, done, taken, undone = agent(
        ("segment_by_prompts", prompts),
        ("export", {"image": "CT", "file": "out/liver.seg.nrrd"}),
        ("export", {"image": "CT", "file": "out/taken.seg.nrrd"}),
        ("undo", {"image": "CT"}),
    )
    assert done == {"file": "out/liver.seg.nrrd"} and (tmp_path / "out" / "liver.seg.nrrd").stat().st_size > 0
    assert taken["error"]["type"] == "OutputError" and undone == {"undone": True, "segments": []}
    assert at_panel.names() == []
    at_panel.desk.click(at_panel.ui.agentsStopButton)
    assert not agents.is_serving and not at_panel.ui.agentsFrame.isVisibleTo(at_panel.ui.segmentTab)


def test_the_switch_says_once_what_an_agent_may_send(at_panel):
    from FoundationSegPanel.computer_dialogs import SettingsDialog

    panel, desk = at_panel.panel, at_panel.desk
    dialog = SettingsDialog(panel.installer, panel.model.agents)

    def switch(is_on):
        dialog.show()
        assert dialog.ui.agentsBox.checked != is_on
        desk.click(dialog.ui.agentsBox)
        desk.click(dialog.ui.saveButton)
        return panel.model.agents.is_serving

    desk.answer_dialogs(press("Cancel", containing="remote model"))
    assert not switch(True) and not panel.installer.settings.agents_agreed
    desk.answer_dialogs(press("Ok", containing="remote model"))
    assert switch(True) and panel.installer.settings.agents_agreed
    assert not switch(False)
    assert switch(True), "it was said before"
