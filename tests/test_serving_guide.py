"""What docs/serving.md shows runs as it stands."""

import numpy as np
import pytest

import documentation


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_served_folder_and_litert(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = documentation.run_page("docs/serving.md")
    assert names["answer"]["valid"].numpy().all() and not names["far"].numpy().any()
    # One step of the analytic inverse solves Poisson's equation.
    y = names["simulator"](names["x"])
    np.testing.assert_allclose(y, names["y"], atol=1e-4 * np.max(np.abs(names["y"])))
