"""Every error of the tree can be sent to another process, as Ray, Spark and pools of processes do."""

from __future__ import annotations

import pickle

import pytest

from q3e_local import errors
from q3e_local.remote.connection import ServerRefusedError


def kinds(kind=errors.Q3EError):
    yield kind
    for each in kind.__subclasses__():
        if each.__module__ == "q3e_local.errors":
            yield from kinds(each)


ARGUMENTS = {
    errors.CrashError: ("was killed", -9, "bad"),
    errors.MissingPackageError: ("a table", "pyarrow", "parquet"),
    errors.UnknownModelError: ("no model 'x'", "there are y, z"),
    errors.SpaceMismatchError: ("other vectors", "rebuild"),
}


@pytest.mark.parametrize("kind", sorted(set(kinds()), key=lambda kind: kind.__name__))
def test_an_error_is_the_same_in_another_process(kind):
    error = kind(*ARGUMENTS.get(kind, ("what is wrong",)))
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (kind, str(error), vars(error))


def test_so_are_the_place_of_a_text_and_what_a_server_said():
    text = pickle.loads(pickle.dumps(errors.TextTooLongError("has 9 tokens", 7)))
    assert str(text) == "text 7: has 9 tokens"
    refused = pickle.loads(pickle.dumps(ServerRefusedError("no", 400, {"error": "no"})))
    assert (str(refused), refused.status, refused.fields) == ("no", 400, {"error": "no"})
