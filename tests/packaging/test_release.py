"""A release has one version, wherever it is named."""

from __future__ import annotations

import re

from paths import ROOT

import q3e_local

VERSION = q3e_local.__version__


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_what_is_cited_is_this_version():
    assert f"\nversion: {VERSION}\n" in text("CITATION.cff")


def test_the_newest_changes_are_those_of_this_version_or_not_released_yet():
    newest = re.search(r"^## (\S+)", text("CHANGELOG.md"), re.MULTILINE)[1]
    assert newest in (VERSION, "Unreleased")


def test_a_release_publishes_what_make_dist_proved():
    assert "run: make dist" in text(".github/workflows/release.yml")
    assert text(".ci/run").rstrip().endswith("make dist")
