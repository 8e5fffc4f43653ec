"""Configs with random mistakes, as data and as text: each is planned, or refused in one line of plain words."""

import copy
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from project import PROJECT, copy_config

from issl.config import resources
from issl.config.plan import load, plans
from issl.config.presets import read_config
from issl.errors import UserError

RAW = read_config(PROJECT / "config.yaml")
# What only a library would say.
JARGON = re.compile(r"[Ii]nput|should|[Tt]uple|[Dd]ictionary|validation|discrimin|function|pydantic|NoneType|\[key\]")


def paths(content, path=()):
    """The keys to every value of a config."""
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in entries:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*path, key))


PATHS = sorted(paths(RAW), key=str)
KEYS = sorted({str(path[-1]) for path in PATHS})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, 2, -1, 2**31, 2**32, 2**70, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(KEYS),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.sampled_from(KEYS), SCALARS), inner, max_size=3)
    ),
    max_leaves=5,
)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(PATHS),
        st.one_of(
            st.tuples(st.just("put"), VALUES),
            st.tuples(st.just("add"), st.tuples(st.one_of(st.sampled_from(KEYS), SCALARS), VALUES)),
            st.tuples(st.just("move"), st.sampled_from(PATHS)),
            st.tuples(st.just("rename"), st.one_of(st.sampled_from(KEYS), st.text(max_size=8))),
            st.tuples(st.just("remove"), st.none()),
        ),
    ),
    min_size=1,
    max_size=3,
)


def at(content, path):
    for key in path:
        content = content[key]
    return content


def changed(change):
    """The project's config after these changes, as far as they can be made one after the other."""
    raw = copy.deepcopy(RAW)
    for path, (how, what) in change:
        try:
            parent, key = at(raw, path[:-1]), path[-1]
            value = parent[key]
            match how:
                case "put":
                    parent[key] = what
                case "add":
                    value[what[0]] = what[1]
                case "move":
                    parent[key] = copy.deepcopy(at(raw, what))
                case "rename":
                    parent[what] = parent.pop(key)
                case "remove":
                    del parent[key]
        except (KeyError, TypeError, IndexError):
            continue
    return raw


def planned(load_plans):
    """Plans everything that the rules look up; the message of a refusal, or an empty one."""
    try:
        found = load_plans()
    except UserError as error:
        return str(error)
    for plan in found.values():
        assert plan.targets() and plan.comparison() and plan.settings() and plan.made()
        for name in (*plan.figures, *plan.tables):
            plan.rows_for(name), plan.scores(name), plan.histories(name), plan.display(name), plan.caption(name)
            plan.published(name)
        for run in plan.runs:
            resources.pretraining_minutes(plan, run)
    return ""


def check(message):
    assert len(message.splitlines()) <= 1 and len(message) < 1500
    assert message.encode() and message.isprintable() if message else True
    words = re.sub(r"'.*'|\".*\"", "", message)  # what the config itself says
    assert not JARGON.search(words), message


def check_changes(change):
    message = planned(lambda: plans(changed(change)))
    check(message)
    assert not message or message.startswith("config"), message


def fuzz(examples):
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


@fuzz(40)
@given(CHANGES)
def test_a_changed_config_is_planned_or_refused_in_one_line(change):
    check_changes(change)


@pytest.mark.slow
@fuzz(1500)
@given(CHANGES)
def test_many_changed_configs_are_planned_or_refused_in_one_line(change):
    check_changes(change)


# --- the file ---

TEXT = (PROJECT / "config.yaml").read_text()
EDITS = st.lists(
    st.tuples(
        st.integers(0, len(TEXT)),
        st.integers(0, 12),
        st.one_of(st.text(max_size=4), st.sampled_from([*"{}[]:,-#&*!|>'\"%@`\n\t \\\r\0é~", "<<: "])),
    ),
    min_size=1,
    max_size=3,
)


def check_edits(folder, edits):
    text = TEXT
    for start, removed, added in edits:
        text = text[:start] + added + text[start + removed :]
    (folder / "config.yaml").write_bytes(text.encode(errors="surrogatepass"))
    message = planned(lambda: load(folder / "config.yaml"))
    check(message.replace(str(folder), "here"))
    file = rf"{re.escape(str(folder))}/(config|(presets|experiments)/\w+)\.yaml"
    assert not message or re.match(rf"{file}(:\d+)?( \(|: )", message), message


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    copy_config(folder)
    return folder


@fuzz(40)
@given(edits=EDITS)
def test_an_edited_file_is_planned_or_refused_in_one_line_that_names_it(folder, edits):
    check_edits(folder, edits)


@pytest.mark.slow
@fuzz(1500)
@given(edits=EDITS)
def test_many_edited_files_are_planned_or_refused_in_one_line_that_names_it(folder, edits):
    check_edits(folder, edits)
