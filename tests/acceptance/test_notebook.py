"""The notebook of examples/ is executed in a real kernel, cell by cell, and shows what a user is to see."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
NOTEBOOK = REPO / "examples" / "first-shots.ipynb"


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::UserWarning")
def test_the_notebook_runs_in_a_real_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOP_SANDBOX__SIZE", "180p")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output for output in shown if output.output_type == "error"] == []
    pages = [_html(output) for output in shown]
    assert any("6 of 6 videos to buy for $0.810" in page for page in pages)
    assert any(page.count("data:image/jpeg;base64,") == 6 and "sandbox: no money spent" in page for page in pages)
    assert any("<video" in page and "data:video/mp4;base64," in page for page in pages)
    assert any("2 of 2 videos to buy for $1.146" in page for page in pages)
    assert not any("Warning" in str(output.get("text", "")) for output in shown)


def _html(output: Any) -> str:
    return str(output.get("data", {}).get("text/html", ""))
