"""Install keras_sip anew under each Python that it is said to work with, and run tests there; needs Python only.

  python benchmarks/python_versions.py tests/ops tests/test_files.py
  python benchmarks/python_versions.py tests/ops --pythons /path/to/python3.12 /path/to/python3.13

Source archive and wheel are built once, the wheel from the archive. Each interpreter gets a virtual environment in a
temporary folder with the wheel and its extra `test`. Tests are those of the unpacked archive and run against the wheel:
first with the newest versions that setup.py admits, as `pip install .` takes them, then with those of requirements.txt,
as `make` does. Interpreters that are not there are named. Each environment takes 3 GB while it is in use.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
PYTHONS = ("python3.11", "python3.12", "python3.13")
PACKAGES = ("tensorflow", "keras", "numpy", "scipy")
# Run outside of checkout and archive: what answers is what was installed.
INSTALLED = """
import importlib.metadata, json, platform, keras_sip
versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy", "scipy")}
print(json.dumps({"python": platform.python_version(), "file": keras_sip.__file__} | versions))
"""


class CommandError(Exception):
    """A command that ended with another code than 0; the text is the end of what it printed."""


def main(argv=None):
    options = parse_options(argv)
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory(prefix="keras_sip-") as folder:
        folder = pathlib.Path(folder)
        wheel, archive = build(folder)
        requirements = {"newest": [f"{wheel}[test]"], "pinned": ["--requirement", archive / "requirements.txt"]}
        print(f"{wheel.name}, tests of {archive.name}\n")
        print_row("python", "packages", *PACKAGES, "tests")
        for python in options.pythons:
            if not answers(python):
                print(f"{python}: not found", flush=True)
                continue
            environment = folder / "environment"
            for packages, installed in requirements.items():
                try:
                    versions, tests = try_under(python, environment, installed, archive, options.tests)
                    print_row(versions["python"], packages, *(versions[name] for name in PACKAGES), tests)
                    passed += 1
                except CommandError as error:
                    print(f"{python}, {packages} packages: failed\n{error}", flush=True)
                    failed += 1
            shutil.rmtree(environment, ignore_errors=True)
    return int(failed > 0 or passed == 0)


def parse_options(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="+", help="files and folders for pytest, relative to the root of the checkout")
    parser.add_argument("--pythons", nargs="+", default=PYTHONS, help=f"interpreters (default: {' '.join(PYTHONS)})")
    return parser.parse_args(argv)


def build(folder):
    """The wheel, and the folder that the source archive was unpacked to.

    From a copy: a build leaves folders behind, and takes in what an earlier one has listed. What the archive lacks is
    named: MANIFEST.in says what goes into it.
    """
    copy = folder / "checkout"
    leftovers = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "_build", "build", "dist", "runs")
    shutil.copytree(ROOT, copy, ignore=leftovers)
    files = {path.relative_to(copy) for path in copy.rglob("*") if path.is_file()}
    python = create_environment(sys.executable, folder / "builder")
    run([python, "-m", "pip", "install", "--quiet", "build"], folder)
    run([python, "-m", "build", "--outdir", folder / "dist", copy], folder)
    shutil.rmtree(copy)
    (archive,) = folder.glob("dist/*.tar.gz")
    (wheel,) = folder.glob("dist/*.whl")
    shutil.unpack_archive(archive, folder)
    unpacked = folder / archive.name.removesuffix(".tar.gz")
    for lacking in sorted(path for path in files if not (unpacked / path).exists()):
        print(f"not in the source archive: {lacking}")
    return wheel, unpacked


def answers(python):
    """Whether the interpreter is there; some that are only listed by a version manager are not."""
    if shutil.which(python) is None:
        return False
    return subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


def try_under(python, environment, requirements, archive, tests):
    """The versions that are installed with `requirements`, and how the tests ended."""
    python = create_environment(python, environment)
    run([python, "-m", "pip", "install", "--quiet", *requirements], environment)
    installed = json.loads(run([python, "-c", INSTALLED], environment).splitlines()[-1])
    if not pathlib.Path(installed["file"]).is_relative_to(environment):
        raise CommandError(f"Expected keras_sip from {environment}. Received {installed['file']}.")
    run([python, "-m", "keras_sip", "list"], environment)
    # pytest by its own name: `python -m pytest` would put the archive before the wheel on the path.
    printed = run([environment / "bin" / "pytest", "-q", *tests], archive)
    return installed, re.search(r"^\d+ passed.*(?= in )", printed, re.MULTILINE)[0]


def create_environment(python, folder):
    """The interpreter of a virtual environment; one that is there already keeps what is installed in it."""
    run([python, "-m", "venv", folder], folder.parent)
    return folder / "bin" / "python"


def run(command, folder):
    """What a command prints on standard output."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    if process.returncode != 0:
        end = "\n".join([*process.stdout.splitlines()[-30:], *process.stderr.splitlines()[-30:]])
        raise CommandError(f"{' '.join(map(str, command))}\n{end}")
    return process.stdout


def print_row(*cells):
    widths = (8, 10, 12, 8, 8, 8)
    # At once: the next row is minutes away.
    print("".join(f"{cell:{width}}" for cell, width in zip(cells[:-1], widths, strict=True)) + cells[-1], flush=True)


if __name__ == "__main__":
    sys.exit(main())
