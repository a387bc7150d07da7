"""Published data that the tests read where they lie beside the project."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"


def needs(path: Path) -> pytest.MarkDecorator:
    """Skip where the file or folder is absent."""
    return pytest.mark.skipif(
        not path.exists(), reason=f"there is no ../shared/data/{path.relative_to(DATA)}"
    )
