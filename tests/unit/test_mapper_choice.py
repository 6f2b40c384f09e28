"""Names of mappers, what they exclude, and the limit of the exhaustive search."""

import pytest

import accelsim.mappers.chain_ways as chain_ways
from accelsim.api import simulate
from accelsim.config import load_accelerator, load_plan
from accelsim.mappers.choice import DEFAULT_MAPPER, MAPPER_NAMES, Mapper, mapper_of
from accelsim.mappers.exhaustive import find_mapping, not_beaten, try_front
from accelsim.mappers.memo import Memo
from accelsim.optable import op_table
from accelsim.problems import AccelsimError
from accelsim.workloads import build_workload


def small():
    return op_table(build_workload("efficientvit_b0", 32), load_plan("uniform8")), load_accelerator("trio_vit")


@pytest.mark.parametrize("name", [*MAPPER_NAMES, "exhaustive:edp:steady"])
def test_a_name_names_itself(name):
    assert mapper_of(name).name == name


def test_short_names():
    assert mapper_of("exhaustive") == Mapper(exhaustive=True)
    assert mapper_of("exhaustive:steady") == Mapper(exhaustive=True, steady=True)
    assert mapper_of("heuristic") == DEFAULT_MAPPER


@pytest.mark.parametrize(
    "name", ["", "exhaustiv", "exhaustive:EDP", "heuristic:edp", "exhaustive:edp:energy", "exhaustive:"]
)
def test_other_names_are_refused(name):
    with pytest.raises(AccelsimError, match="unknown mapper"):
        mapper_of(name)


def test_a_name_is_a_mapper_in_the_api():
    table, accelerator = small()
    by_name = simulate(table, accelerator, mapper="exhaustive:edp")
    assert by_name.found is not None
    assert by_name.found.objective == "edp"
    assert simulate(table, accelerator, mapper="heuristic").found is None
    with pytest.raises(AccelsimError, match="unknown mapper"):
        simulate(table, accelerator, mapper="bogus")


def test_what_could_not_be_used_is_refused():
    table, accelerator = small()
    mapping = simulate(table, accelerator).mapping
    with pytest.raises(AccelsimError, match="together with a mapping"):
        simulate(table, accelerator, mapping, mapper="exhaustive")
    with pytest.raises(AccelsimError, match="together with no fusion"):
        simulate(table, accelerator, fuse=False, mapper="exhaustive")


def test_too_many_shares_are_a_problem_and_no_memory_error(monkeypatch):
    monkeypatch.setattr(chain_ways, "FIRST_OPTIONS", 2)
    monkeypatch.setattr(chain_ways, "MOST_OPTIONS", 2)
    with pytest.raises(AccelsimError, match="more than 2 ways to share"):
        find_mapping(*small(), memo=Memo())


@pytest.mark.parametrize("objective", ["latency", "energy", "edp"])
def test_no_search_beats_the_front(objective):
    table, accelerator = small()
    kept = find_mapping(table, accelerator, objective, memo=Memo()).kept
    tried = try_front(table, accelerator, memo=Memo())
    assert (kept.cycles, kept.energy_pj) in [(one.cycles, one.energy_pj) for one in tried]
    best = min(one.value(objective) for one in not_beaten(tried))
    assert best <= kept.value(objective)


def test_names_of_a_memo_are_forgotten_without_being_given_again(monkeypatch):
    monkeypatch.setattr("accelsim.mappers.memo.MAX_NAMES", 2)
    memo = Memo()
    first = [memo.name(key) for key in ("a", "b", "a")]
    later = [memo.name(key) for key in ("c", "a")]
    assert first[0] == first[2] != first[1]
    assert not set(first) & set(later)
