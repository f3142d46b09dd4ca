import pytest

from FoundationSegLib.catalog.catalogue import has_adapter, read_catalogue
from FoundationSegLib.hub.store import Store
from FoundationSegLib.installation import readiness
from Testing.gui.model_rig import FILES, MUST_ACCEPT, NEEDS_NOTHING, NEEDS_SAMPLE, cells
from Testing.slicer_standin.dialogs import choose_file, press
from Testing.unit.hub.hub_cases import content_of


@pytest.fixture
def show(rig):
    def make(*replacements):
        from FoundationSegPanel.model_part import ModelsDialog

        rig.card(*replacements)
        rig.set_up = []
        return rig.show(ModelsDialog(rig.open(), rig.set_up.append), "far")

    return make


@pytest.fixture
def folder(tmp_path):
    """The model's files, as they were carried here by hand."""
    for name, content in FILES.items():
        (tmp_path / "carried" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "carried" / name).write_bytes(content)
    return tmp_path / "carried"


def row(models, title):
    table = models.ui.modelsTable
    return next(row for row in cells(table, table.columnCount) if row[0] == title)


def message(models):
    return models.ui.messageLabel.text


def buttons(models):
    names = ("setUp", "download", "import", "remove", "removeAll", "stop")
    return {name for name in names if getattr(models.ui, f"{name}Button").enabled}


def idle(models):
    return not models._installer.task


def get(rig, models):
    rig.desk.click(models.ui.downloadButton)
    rig.wait(lambda: idle(models))


@pytest.fixture
def no_vista3d(monkeypatch):
    """A version without an adapter for one of its cards."""
    monkeypatch.setattr(readiness, "has_adapter", lambda card: card.family != "vista3d" and has_adapter(card))


def test_every_model_is_listed_those_that_run_here_first(no_vista3d, rig, show):
    models = show()
    titles = [models.ui.modelsTable.item(r, 0).text() for r in range(models.ui.modelsTable.rowCount)]
    assert sorted(titles) == sorted(card.title for card in read_catalogue().values())
    assert row(models, "Fake Model") == ("Fake Model", "To download", "segments", "box", "yes", "2 MB", "MIT", "yes")
    assert row(models, "MedSAM2")[6:] == ("CC-BY-SA-4.0", "unclear")
    beyond = read_catalogue()["vista3d"].title
    assert titles.index("LiteMedSAM") < titles.index(beyond) and row(models, beyond)[1] == "Not in this version"
    assert rig.hub.requests == []
    models.ui.filterEdit.text = "scores"
    shown = [title for n, title in enumerate(titles) if not models.ui.modelsTable.isRowHidden(n)]
    assert "BiomedCLIP" in shown and "LiteMedSAM" not in shown


def test_the_chosen_card_is_shown_and_says_what_may_be_done(no_vista3d, rig, show):
    models = show(NEEDS_SAMPLE)
    assert "foundationseg_sample" in models.ui.cardBrowser.toPlainText()
    assert buttons(models) == {"setUp", "download", "import", "removeAll"}
    rig.desk.click(models.ui.setUpButton)
    assert rig.set_up == ["far"]
    models.show("vista3d")
    assert "cannot run this model yet" in models.ui.cardBrowser.toPlainText()
    assert not buttons(models) & {"setUp", "download", "remove"}
    assert models.ui.setUpButton.toolTip == "Not in this version" and not models.ui.useButton.enabled


def test_a_model_is_downloaded_and_removed(rig, show, tmp_path):
    models = show()
    rig.desk.click(models.ui.downloadButton)
    assert buttons(models) == {"stop"}
    rig.wait(lambda: idle(models))
    assert "is downloaded" in message(models) and row(models, "Fake Model")[1] == "Ready"
    assert content_of(Store(tmp_path / "rig" / "store"), models._card) == FILES
    rig.desk.answer_dialogs(press("Cancel", containing="Fake Model: 2 MB"))
    rig.desk.click(models.ui.removeButton)
    assert row(models, "Fake Model")[1] == "Ready", "asked, and not agreed"
    rig.desk.answer_dialogs(press("Ok", containing="2 MB in all"))
    rig.desk.click(models.ui.removeButton)
    rig.wait(lambda: idle(models))
    assert message(models) == "2 MB freed."
    assert rig.stopped == 1, "the worker lets go of the files first"
    assert row(models, "Fake Model")[1] == "To download"


def test_every_downloaded_model_is_listed_before_all_go(rig, show, tmp_path):
    models = show()
    rig.desk.click(models.ui.removeAllButton)
    assert message(models) == "There is no downloaded model."
    get(rig, models)
    (tmp_path / "rig" / "store" / "models" / "medsam" / "old").mkdir(parents=True)
    (tmp_path / "rig" / "store" / "models" / "medsam" / "old" / "x").write_bytes(bytes(3_000_000))
    rig.desk.answer_dialogs(press("Ok", containing="MedSAM: 3 MB"))
    rig.desk.click(models.ui.removeAllButton)
    rig.wait(lambda: idle(models))
    assert message(models) == "5 MB freed."


def test_a_download_that_is_stopped_is_kept(rig, show):
    models = show()
    rig.hub.slow_s = 0.05
    rig.desk.click(models.ui.downloadButton)
    rig.wait(lambda: models.ui.progressBar.maximum == 1000 and models.ui.progressBar.value > 200)
    rig.desk.click(models.ui.stopButton)
    rig.wait(lambda: idle(models))
    assert "Stopped" in message(models) and row(models, "Fake Model")[1] == "Partly downloaded"
    rig.hub.slow_s = 0
    get(rig, models)
    assert row(models, "Fake Model")[1] == "Ready"


def test_terms_come_first(rig, show):
    models = show(MUST_ACCEPT, NEEDS_NOTHING)
    assert row(models, "Fake Model")[1] == "Licence to accept"
    rig.desk.click(models.ui.downloadButton)
    rig.desk.click(models.license.ui.declineButton)
    assert "not accepted" in message(models) and rig.hub.requests == []
    rig.desk.click(models.ui.downloadButton)
    rig.desk.click(models.license.ui.agreeCheckBox)
    rig.desk.click(models.license.ui.acceptButton)
    rig.wait(lambda: idle(models) and row(models, "Fake Model")[1] == "Ready")
    models._installer.remove_checkpoints(["far"], _nobody())
    rig.wait(lambda: idle(models))
    rig.desk.click(models.ui.downloadButton)
    rig.wait(lambda: idle(models) and row(models, "Fake Model")[1] == "Ready")


def _nobody():
    from FoundationSegPanel.model_installer import Callbacks

    return Callbacks(lambda _: None, lambda _: None)


def test_a_model_comes_from_a_folder(rig, show, folder):
    models = show()
    rig.desk.answer_dialogs(choose_file(""))
    rig.desk.click(models.ui.importButton)
    assert idle(models)
    rig.desk.answer_dialogs(choose_file(folder))
    rig.desk.click(models.ui.importButton)
    rig.wait(lambda: idle(models))
    assert "is imported" in message(models) and row(models, "Fake Model")[1] == "Ready" and rig.hub.requests == []


def test_a_folder_with_other_files_is_refused(rig, show, folder):
    models = show()
    (folder / "config.json").unlink()
    rig.desk.answer_dialogs(choose_file(folder))
    rig.desk.click(models.ui.importButton)
    rig.wait(lambda: idle(models))
    assert "config.json of far is not in carried" in message(models) and row(models, "Fake Model")[1] == "To download"


def test_the_folder_is_opened(rig, show, tmp_path):
    models = show()
    rig.desk.click(models.ui.openFolderButton)
    assert [url.removeprefix("file://") for url in rig.desk.opened_urls] == [str(tmp_path / "rig" / "store")]


def test_a_wrong_card_of_the_users_does_not_take_the_others_away(rig, tmp_path):
    from FoundationSegPanel.model_part import ModelsDialog

    (tmp_path / "rig" / "cards" / "bad.toml").write_text("id = 3")
    models = ModelsDialog(rig.open(), print)
    assert "bad.toml" in message(models) and models.ui.modelsTable.rowCount > 10
    models.close()


def test_closing_ends_nothing_that_somebody_else_began(rig, show):
    models = show()
    rig.hub.slow_s = 0.05
    rig.desk.click(models.ui.downloadButton)
    rig.desk.click(models.ui.closeButton)
    rig.hub.slow_s = 0
    rig.wait(lambda: idle(models))
    models.show("far")
    assert row(models, "Fake Model")[1] == "Ready"
