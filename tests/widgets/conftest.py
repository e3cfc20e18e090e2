"""What the tests of widgets share."""

import comm
import pytest


@pytest.fixture(autouse=True)
def _comms_of_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Widgets send as in a plain Python, also where another test has imported ipykernel.

    It puts comms of its own in place, and those send nothing as long as no kernel runs.
    """
    monkeypatch.setattr(comm, "create_comm", comm._create_comm)
    monkeypatch.setattr(comm, "get_comm_manager", comm._get_comm_manager)
