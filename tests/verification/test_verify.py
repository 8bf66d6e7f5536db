"""From a target to verdicts, on a real merge of the zoo; interrupted and gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from unmerge.core.errors import BadInput
from unmerge.decomposition import decompose, open_base, open_dictionary, open_vector
from unmerge.evaluation.suite import Examples, Scores, Suite
from unmerge.verification.record import SCHEMA, Verification
from unmerge.verification.run import Request, components, required_items, verify
from unmerge.verification.tasks import TaskList
from unmerge_lab.zoo import held_out

WEIGHTS = {"pirate": 0.8, "reversal": 0.7}
ITEMS = 24
TASKS = TaskList({"pirate": ("pirate",), "reversal": ("reversal",), "maximum": ("maximum",)}, ("copy",))


class Spy(Suite):
    """Scores by exact match, and remembers what it was asked."""

    def __init__(self) -> None:
        self._examples = Examples({task: held_out()[task][:ITEMS] for task in TASKS.all})
        self.asked: list[tuple[str, ...]] = []

    @property
    def tasks(self) -> tuple[str, ...]:
        return self._examples.tasks

    def score(self, model: Any, tokenizer: Any, tasks: Sequence[str]) -> Scores:
        self.asked.append(tuple(tasks))
        return self._examples.score(model, tokenizer, tasks)

    def scorer(self, task: str) -> str:
        return self._examples.scorer(task)

    def identity(self, task: str) -> str:
        return self._examples.identity(task)


def make_request(zoo: Path, target: Path, **more: Any) -> Request:
    base = open_base(zoo / "zoo-base")
    dictionary = open_dictionary([zoo / "known" / name for name in TASKS.of], base)
    vector = open_vector(target, base)
    decomposition = decompose(vector, dictionary, base, "nnls")
    real = [component for component in decomposition.components if component.coefficient > 0.1]
    decomposition = decomposition.model_copy(update={"components": real})
    return Request(**{"target": vector, "base": base, "dictionary": dictionary, "decomposition": decomposition, "tasks": TASKS, "chosen": {}} | more)


@pytest.fixture(scope="module")
def request_(zoo: Path, merged: Callable[..., Path]) -> Request:
    return make_request(zoo, merged(WEIGHTS))


@pytest.fixture(scope="module")
def done(request_: Request, tmp_path_factory: pytest.TempPathFactory) -> tuple[Verification, Path, list[str], Spy]:
    """The record, the file of items, what happened in which order, and what was scored."""
    items, spy, order = tmp_path_factory.mktemp("verified") / "out.items.jsonl", Spy(), list[str]()

    def tell(power: Any, predictions: Any) -> None:
        order.append(f"told after {len(spy.asked)}, predictions on disk: {(items.with_suffix('.predicted.json')).exists()}")

    return verify(request_, spy, items, tell), items, order, spy


def test_components_are_verified(done: tuple[Verification, Path, list[str], Spy]) -> None:
    result = done[0]
    assert Verification.model_validate_json(result.model_dump_json()) == result
    assert json.loads(result.model_dump_json())["schema"] == SCHEMA == "unmerge/verification/1"
    assert {component.removed: component.verdict for component in result.components} == dict.fromkeys(WEIGHTS, "verified")
    for component in result.components:
        assert component.coefficient == pytest.approx(WEIGHTS[component.removed], abs=0.02)
        assert (component.before, component.after, component.items) == (1.0, 0.0, ITEMS)
        assert component.prediction.after == 0.0
        assert component.prediction.before == 1.0
        assert component.interval == (1.0, 1.0)
        assert component.adjusted_p_value == pytest.approx(2 * component.p_value) == 4 * 0.5**ITEMS
        assert [change.task for change in component.changes] == [task for task in TASKS.all if task != component.removed]
        assert component.general_change == 0.0
        assert {control.kind: control.verified for control in component.controls} == {
            "random direction": False,
            "absent atom": False,
            "shuffled modules": False,
        }
        assert next(control.atom for control in component.controls if control.kind == "absent atom") == "maximum"
        assert [dose.multiple for dose in component.doses] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
        assert component.doses[0].score == 1.0
        assert [way.name for way in component.ways] == ["whole", "orthogonal", "by module"]
        assert component.ways[0].after == component.after
        assert component.selectivity is None or component.selectivity > 10
        assert max(map(abs, component.base_alone.values())) <= 1 / ITEMS
    assert result.least_disturbing in {"whole", "orthogonal", "by module"}
    assert {task.name: (task.base, task.before, task.kind) for task in result.tasks} == {
        "pirate": (0.0, 1.0, "skill"),
        "reversal": (0.0, 1.0, "skill"),
        "maximum": (0.0, 0.0, "skill"),
        "copy": (1.0, 1.0, "general"),
    }


def test_predictions_come_first(done: tuple[Verification, Path, list[str], Spy]) -> None:
    """They are told, and lie on disk, after the base was measured and before the target: the next thing scored is the target, on every task."""
    result, items, order, spy = done
    (said,) = order
    told = int(said.split()[2].rstrip(","))
    assert said.endswith("predictions on disk: True")
    assert spy.asked[0] == spy.asked[told] == TASKS.all
    # nothing; for each component six doses alone and seven beside the other, of which the last one is the other alone, and its subtraction
    assert told == 1 + 2 * (6 + 7 + 1)
    predicted = json.loads(items.with_suffix(".predicted.json").read_text())
    assert predicted == {component.removed: component.prediction.model_dump(mode="json") for component in result.components}


def test_an_interrupted_run_goes_on(request_: Request, done: tuple[Verification, Path, list[str], Spy], tmp_path: Path) -> None:
    """No item is scored twice, and the record is that of an uninterrupted run."""
    result, _, _, whole = done
    items, spy = tmp_path / "out.items.jsonl", Spy()

    def stop_at(condition: int) -> Callable[[int, int], None]:
        def watch(finished: int, total: int) -> None:
            assert finished <= total
            if finished == condition:
                raise KeyboardInterrupt

        return watch

    for condition in (3, 12, 31):
        with pytest.raises(KeyboardInterrupt):
            verify(request_, spy, items, watch=stop_at(condition))
    with items.open("a") as stream:
        stream.write('{"job": "torn')
    again = verify(request_, spy, items)
    assert sorted(spy.asked) == sorted(whole.asked)
    left_out = {"seconds", "environment", "items"}
    assert again.model_dump(exclude=left_out) == result.model_dump(exclude=left_out)


def test_what_another_job_left_is_not_taken(request_: Request, done: tuple[Verification, Path, list[str], Spy], tmp_path: Path) -> None:
    """Another coefficient is another job; its lines are added, and those of the first stay."""
    items = tmp_path / "out.items.jsonl"
    items.write_text(done[1].read_text())
    spy = Spy()
    one = make_chosen(request_, {"pirate": 0.01})
    result = verify(one, spy, items)
    assert len(spy.asked) > 10
    assert items.read_text().startswith(done[1].read_text())
    (component,) = result.components
    assert (component.verdict, component.after) == ("no effect", 1.0)
    assert component.survival is not None
    assert component.survival.cause in ("not known", "another component carries it")
    assert component.because[-1].startswith(component.survival.cause)
    # a way that comes to the whole atom is not measured again
    assert component.ways[0].scores == component.ways[1].scores


def make_chosen(request: Request, chosen: dict[str, float | None]) -> Request:
    return Request(request.target, request.base, request.dictionary, request.decomposition, request.tasks, chosen)


def test_what_is_not_there_is_not_measurable(request_: Request) -> None:
    (component,) = verify(make_chosen(request_, {"maximum": 0.5}), Spy()).components
    assert (component.verdict, component.before) == ("not measurable", 0.0)
    assert component.relative_drop is None
    assert not any(control.verified for control in component.controls)


def test_an_adapter_as_target(zoo: Path) -> None:
    """It is merged into its base in float32, as PEFT does; less itself it is the base."""
    request = make_request(zoo, zoo / "known" / "pirate", chosen={"pirate": 1.0})
    result = verify(request, Spy())
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(zoo / "zoo-base", dtype=torch.float32), zoo / "known" / "pirate")
    tokenizer = AutoTokenizer.from_pretrained(zoo / "zoo-base")
    scores = Examples({task: held_out()[task][:ITEMS] for task in TASKS.all}).score(model.merge_and_unload(), tokenizer, TASKS.all)
    assert {task.name: task.before for task in result.tasks} == {task: sum(values) / ITEMS for task, values in scores.items()}
    (component,) = result.components
    assert (component.verdict, component.after) == ("verified", 0.0)


def test_nothing_found_is_nothing_to_remove(request_: Request) -> None:
    empty = request_.decomposition.model_copy(update={"components": []})
    spy = Spy()
    result = verify(Request(request_.target, request_.base, request_.dictionary, empty, request_.tasks, {}), spy)
    assert (result.components, result.tasks, result.items, spy.asked) == ([], [], None, [])


@pytest.mark.parametrize(
    ("chosen", "tasks", "said"),
    [
        (
            {"maximum": None},
            TASKS,
            "expected a component of the target (pirate, reversal), found maximum; give its coefficient: --remove maximum=0.5",
        ),
        ({"nobody": 1.0}, TASKS, "the dictionary: expected one of pirate, reversal, maximum, found nobody"),
        ({}, TaskList({"maximum": ("maximum",)}), "expected a component with a task, found none for pirate, reversal; name its tasks in the file"),
    ],
)
def test_refused(chosen: dict[str, float | None], tasks: TaskList, said: str, request_: Request) -> None:
    with pytest.raises(BadInput) as refused:
        components(Request(request_.target, request_.base, request_.dictionary, request_.decomposition, tasks, chosen))
    assert said in str(refused.value)


def test_a_component_without_a_task_is_named(request_: Request) -> None:
    only = TaskList({"pirate": ("pirate",)})
    found, without = components(Request(request_.target, request_.base, request_.dictionary, request_.decomposition, only, {}))
    assert ([one.name for one in found], without) == (["pirate"], ["reversal"])


def test_required_items() -> None:
    """More components, a stricter level, more items; tasks that have fewer are named."""
    one, many = required_items(1, {"few": 5, "many": 500}), required_items(10, {})
    assert one.short == ["few"]
    assert (one.level, many.level) == (0.05, 0.005)
    assert one.needed < many.needed < one.needed_for_small
