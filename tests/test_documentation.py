"""The pages hang together: nothing named is missing, nothing public is left out, no example goes untested."""

import pathlib
import re

import pytest

import documentation
import keras_sip
from keras_sip import callbacks

DOCS = documentation.ROOT / "docs"
PAGES = sorted(
    path.relative_to(documentation.ROOT).as_posix() for path in DOCS.rglob("*.md") if "_build" not in path.parts
)
TESTS = "".join(path.read_text(encoding="utf-8") for path in pathlib.Path(__file__).parent.glob("test_*.py"))


@pytest.mark.parametrize("page", ["README.md", "RESULTS.md", *PAGES])
def test_files_that_a_page_names_exist(page):
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", documentation.text(page), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose)
    folder = (documentation.ROOT / page).parent
    missing = [target for target in targets if "://" not in target and not (folder / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", [page for page in PAGES if documentation.blocks(page)])
def test_examples_of_a_page_are_run_by_a_test(page):
    assert f'"{page}"' in TESTS


def test_every_command_that_pages_show_names_a_file_that_exists():
    shown = "".join(documentation.text(page) for page in ("README.md", *PAGES))
    scripts = set(re.findall(r"python ((?:applications|benchmarks)/\w+\.py)", shown))
    assert scripts and not [script for script in scripts if not (documentation.ROOT / script).exists()]


@pytest.mark.parametrize("package, names", [("", keras_sip.__all__), ("callbacks", callbacks.__all__)])
def test_every_public_name_has_its_place_in_the_reference(package, names):
    reference = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    documented = set(re.findall(r"^\.\. auto(?:class|function|data):: (\w+)$", reference, re.MULTILINE))
    modules = {"__version__", "callbacks", "ops"}
    assert not sorted(set(names) - documented - modules)


def test_every_public_solver_is_in_the_table():
    solvers = {
        name
        for name in keras_sip.__all__
        if isinstance(getattr(keras_sip, name), type)
        and issubclass(getattr(keras_sip, name), keras_sip.InverseSolver)
        and name not in ("InverseSolver", "DirectInverse", "SpectralInverse")
    }
    table = documentation.text("docs/choosing_a_solver.md")
    assert solvers == set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


def test_every_operator_module_is_in_the_reference():
    modules = {path.stem for path in (documentation.ROOT / "keras_sip" / "ops").glob("[!_]*.py")}
    shown = re.findall(r"automodule:: keras_sip\.ops\.(\w+)", documentation.text("docs/api/ops.md"))
    assert sorted(modules) == shown


def test_the_readme_leads_to_every_guide():
    guides = {page for page in PAGES if page.count("/") == 1} - {"docs/index.md", "docs/changelog.md"}
    assert not [guide for guide in guides if guide not in documentation.text("README.md")]
