"""What tests of the extension share."""

from types import SimpleNamespace

import pytest

import companion


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kind, page and sentence of every warning that the extension gives."""
    given: list[str] = []

    def warn(message: str, *values: str, location: str, type: str, subtype: str) -> None:
        assert (type, location) == ("companion", values[0])
        given.append(f"{subtype}: {message % values}")

    monkeypatch.setattr(companion, "logger", SimpleNamespace(warning=warn, info=lambda *_: None))
    return given
