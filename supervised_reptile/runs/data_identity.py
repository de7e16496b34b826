"""Which data a run is of: its checkpoints, its directory and its records say so."""

from __future__ import annotations

from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.errors import RunError, printable


def data_facts(dataset: FewShotDataset) -> dict[str, str]:
    """Fingerprint and description of a data set; empty where it has none."""
    names = ("fingerprint", "description")
    found = {name: getattr(dataset, name, "") for name in names}
    return found if found["fingerprint"] else {}


def identity_of(dataset: FewShotDataset) -> str:
    """Fingerprint and description in one line."""
    return " ".join(data_facts(dataset).values())


def check_same_data(saved: str, dataset: FewShotDataset, what: str, flag: str) -> None:
    """Raise ``RunError`` if what was trained is of other data than a data set.

    Args:
        saved: Fingerprint and description of the data it was trained on; "" if not known.
        dataset: The data at hand, whose fingerprint may be unknown as well.
        what: What was trained, for the message.
        flag: What the message begins with.
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
