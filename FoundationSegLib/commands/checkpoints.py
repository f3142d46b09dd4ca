"""Before a model is used: what has to be downloaded for it."""

from ..catalog.model_cards import ModelCard
from ..errors import PackageMissingError
from ..hub.fetch import needs_download, require_fetchable
from ..hub.store import Store, default_store_folder
from ..installation.packages import installed_version, requirement_name
from ..requests.worker_settings import DeviceChoice
from .terminal import announce_download


def announce_missing(card: ModelCard, device: DeviceChoice) -> None:
    """Say what will be downloaded before a model can be used, if anything will be.

    Raises:
        CheckpointError: its terms have to be accepted first, or it cannot be fetched.
        PackageMissingError: it cannot be run when it is there.
        InputError: there is no such device; what cannot compute need not download.
    """
    store = Store(default_store_folder())
    if not needs_download(store, card):
        return
    require_fetchable(card, store=store)
    _require_packages(card)
    _require_device(device)
    announce_download(card)


def _require_packages(card: ModelCard) -> None:
    missing = [text for text in card.packages if not installed_version(requirement_name(text))]
    if missing:
        remedy = f"'models download {card.id} --with-packages' brings them with the model"
        raise PackageMissingError(
            f"{card.title} needs packages that are not installed ({', '.join(missing)}); {remedy}"
        )


def _require_device(device: DeviceChoice) -> None:
    """The devices that are asked for by name; the others are there in any case, and torch is slow to import."""
    if device in ("cuda", "mps"):
        from ..engine.device import choose_device

        choose_device(device)
