"""The pinned versions and their digests are of one set of packages."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]


def test_every_pinned_version_has_digests():
    pinned = re.findall(r"(?m)^([\w.-]+)==(\S+)$", (ROOT / "requirements.txt").read_text())
    text = (ROOT / "requirements-hashes.txt").read_text()
    hashed = re.findall(r"(?m)^([\w.-]+)==(\S+) ((?:\\\n    --hash=sha256:[0-9a-f]{64} ?)+)$", text)

    def normalised(name):
        return re.sub(r"[-_.]+", "-", name).lower()  # PEP 503

    assert {(normalised(name), version) for name, version in pinned} == {
        (normalised(name), version) for name, version, _ in hashed
    }
    assert text.count("--hash=") == sum(digests.count("--hash=") for *_, digests in hashed) > len(hashed) == len(pinned)
