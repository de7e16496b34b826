"""The identity of a run's data, stored in its checkpoints, directory and records."""

from __future__ import annotations

from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.errors import RunError, printable


def data_facts(dataset: FewShotDataset) -> dict[str, str]:
    """Return the fingerprint and description of a data set; empty if it has none."""
    names = ("fingerprint", "description")
    found = {name: getattr(dataset, name, "") for name in names}
    return found if found["fingerprint"] else {}


def identity_of(dataset: FewShotDataset) -> str:
    """Return the fingerprint and description in one line."""
    return " ".join(data_facts(dataset).values())


def check_same_data(saved: str, dataset: FewShotDataset, what: str, flag: str) -> None:
    """Raise ``RunError`` if a network was trained on other data.

    Args:
        saved: Fingerprint and description of the training data; "" if unknown.
        dataset: The current data, whose fingerprint may also be unknown.
        what: Description of the network, for the message.
        flag: Flag at the start of the message.
    """
    ours = identity_of(dataset)
    if not ours:
        return
    if not saved:
        print(
            f"note: {printable(what)} does not say on which data it was trained; these are {ours}"
        )
    elif saved.split()[0] != ours.split()[0]:
        raise RunError(
            f"{flag}: {what} was trained on other data. Expected: {saved}. Received: {ours}"
        )
