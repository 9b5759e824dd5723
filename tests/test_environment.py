"""`import keras_sip` under Keras' settings, each in a fresh process, because Keras reads them only once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_sip._environment import check_environment

ROOT = Path(__file__).parents[1]
NO_DISPLAY = {"DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"}


def run_python(code, keras_home, **variables):
    inherited = {name: value for name, value in os.environ.items() if name not in NO_DISPLAY | {"KERAS_BACKEND"}}
    environment = inherited | {"KERAS_HOME": str(keras_home)} | variables
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)


def import_error(code, keras_home, **variables):
    process = run_python(code, keras_home, **variables)
    assert process.returncode == 1, process.stderr
    assert "\nImportError: Expected " in process.stderr, process.stderr
    return process.stderr.split("\nImportError: ")[-1]


@pytest.fixture
def keras_json(tmp_path):
    def write(**settings):
        path = tmp_path / "keras.json"
        path.write_text(json.dumps(settings))
        return path

    return write


def test_backend_of_the_environment_variable_is_refused(tmp_path, keras_json):
    keras_json(backend="tensorflow")
    message = import_error("import keras_sip", tmp_path, KERAS_BACKEND="jax")
    assert "Expected Keras to use the 'tensorflow' backend" in message
    assert "Received 'jax' from the environment variable KERAS_BACKEND" in message
    assert "export KERAS_BACKEND=tensorflow" in message


@pytest.mark.parametrize("variable", [{}, {"KERAS_BACKEND": ""}], ids=["unset", "empty"])
def test_backend_of_the_settings_file_is_refused(tmp_path, keras_json, variable):
    path = keras_json(backend="torch")
    message = import_error("import keras_sip", tmp_path, **variable)
    assert f"Received 'torch' from the file {path}" in message
    assert '"backend": "tensorflow"' in message


def test_settings_file_is_found_in_the_home_directory(tmp_path):
    (tmp_path / ".keras").mkdir()
    path = tmp_path / ".keras" / "keras.json"
    path.write_text('{"backend": "jax"}')
    code = "import os; del os.environ['KERAS_HOME']; import keras_sip"
    assert f"from the file {path}" in import_error(code, "", HOME=str(tmp_path))


def test_backend_of_an_earlier_keras_import_is_refused(tmp_path):
    code = """
import contextlib, os
with contextlib.suppress(ImportError):  # whether or not jax is installed, Keras keeps its choice
    import keras
os.environ["KERAS_BACKEND"] = "tensorflow"
import keras_sip
"""
    message = import_error(code, tmp_path, KERAS_BACKEND="jax")
    assert "Received 'jax' from Keras, which was imported in this process before keras_sip" in message
    assert "Start Python again" in message


def test_missing_tf_keras_is_named_with_the_line_that_installs_it(tmp_path):
    message = import_error("import sys; sys.modules['tf_keras'] = None; import keras_sip", tmp_path)
    requirement = '"tf-keras>=2.21,<2.22"'
    assert f"{sys.executable} -m pip install {requirement}" in message
    assert requirement in (ROOT / "setup.py").read_text()


def test_environment_variable_outranks_the_settings_file(tmp_path, keras_json, monkeypatch):
    keras_json(backend="jax")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.delitem(sys.modules, "keras.src.backend.config")  # as in a process that has not imported Keras
    check_environment()


SETTINGS = "print(keras.config.floatx(), keras.config.image_data_format())"


def test_other_keras_settings_are_accepted_and_kept(tmp_path, keras_json):
    keras_json(floatx="float64", image_data_format="channels_first", backend="tensorflow", epsilon=1e-7)
    process = run_python(f"import keras_sip, keras; {SETTINGS}", tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == ["float64", "channels_first"]


def test_import_needs_no_matplotlib_and_leaves_what_takes_seconds_until_it_is_used(tmp_path, keras_json):
    # The other settings of Keras, in the same process: a start of TensorFlow is what these tests take.
    keras_json(floatx="float16", image_data_format="channels_last", backend="tensorflow", epsilon=1e-7)
    # Keras itself imports matplotlib where it is installed, so that a missing one is the only sharp test.
    code = f"""
import sys
sys.modules["matplotlib"] = None
import keras, keras_sip
{SETTINGS}
print({{"tensorflow_probability", "tf_keras", "scipy.stats", "tensorboard"}} & set(sys.modules))
print(keras_sip.Posterior.__base__.__name__, keras_sip.solvers.Posterior is keras_sip.Posterior)
"""
    process = run_python(code, tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == ["float16 channels_last", "set()", "Distribution True"]
