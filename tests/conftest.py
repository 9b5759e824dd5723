"""Two logical CPUs, so that replicas can be tested on one machine; fixed seeds; programs that are compiled quickly."""

import gc
import hashlib
import os
import pathlib

import pytest

CACHE = pathlib.Path(__file__).parents[1] / ".xla_cache"
# Files that take longest, begun first, so that no process is left with one at the end.
LONGEST = (
    "solvers/test_solver_properties.py",
    "solvers/test_nist.py",
    "training/test_layer_laws.py",
    "solvers/test_refine.py",
    "training/test_model.py",
    "training/test_xla_trial.py",
    "training/test_units.py",
    "solvers/test_against_scipy.py",
    "test_guides.py",
    "test_training_guides.py",
    "simulators/test_simulator_properties.py",
    "applications/ensembles/test_small_networks.py",
    "training/test_methods.py",
    "diagnostics/test_check_simulator.py",
    "optimizers/test_residual_kernel.py",
    "serving/test_export.py",
    "applications/experiments/test_runner.py",
    "test_readme.py",
    "test_running_guide.py",
    "applications/test_compare.py",
    "serving/test_pretrained.py",
    "applications/ensembles/test_ensemble.py",
    "benchmarks/test_export_step.py",
    "benchmarks/test_train_step.py",
    "benchmarks/test_fluid_benchmark.py",
    "callbacks/test_exact_resume.py",
)


def _compile_quickly():
    """Have XLA spend little on programs that run once or twice, and none on those that an earlier run has compiled.

    Before TensorFlow is imported; processes that tests start inherit it. Flags of one's own come last and win.
    """
    cpu = pathlib.Path("/proc/cpuinfo")
    # Programs fit the processor they were compiled on.
    flags = {line for line in cpu.read_text().splitlines() if line.startswith("flags")} if cpu.exists() else ()
    folder = CACHE / hashlib.sha256("".join(sorted(flags)).encode()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    for variable, options in (
        ("XLA_FLAGS", "--xla_backend_optimization_level=0"),
        ("TF_XLA_FLAGS", f"--tf_xla_persistent_cache_directory={folder}"),
    ):
        os.environ[variable] = f"{options} {os.environ.get(variable, '')}".strip()


_compile_quickly()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from eager import eagerly  # noqa: E402

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


def pytest_collection_modifyitems(items):
    folder = pathlib.Path(__file__).parent
    rank = {folder / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(LONGEST)))
    # Graphs are made of many small objects, among which little is garbage.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


@pytest.fixture(autouse=True, scope="session")
def _fixed_seeds():
    # Once: each call has TensorFlow forget the functions it has compiled.
    keras.utils.set_random_seed(0)


@pytest.fixture(name="eagerly")
def _eagerly():
    with eagerly():
        yield


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mixed_float16():
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    yield
    keras.mixed_precision.set_dtype_policy("float32")
