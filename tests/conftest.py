"""While the tests run, every function of both packages checks the shapes and types that its signature states.

Also the real things that several rooms are tested on: the embedded zoo, and merges of its adapters.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from unmerge.auditing import Audit

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# nothing of the package may be imported before this, so fixtures import it late
install_import_hook(["unmerge", "unmerge_lab"], "beartype.beartype")


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The embedded zoo: ``zoo-base``, ``known``, ``unknown``; real PEFT adapters to a real model."""
    from unmerge_lab import embedded_zoo

    return embedded_zoo()


@pytest.fixture(scope="session")
def wide_base(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zoo's base in float32, moved off bfloat16's grid, so that a merge in bfloat16 rounds every weight."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("wide") / "zoo-base"
    model = AutoModelForCausalLM.from_pretrained(zoo / "zoo-base", dtype=torch.float32)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data *= 1 + 2e-3 * torch.rand_like(parameter)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(zoo / "zoo-base").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def merged(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Merge known adapters of the zoo with mergekit; equal merges are made once.

    ``merged({"pirate": 0.5}, "ties", parameters={"density": 0.5})``
    """
    from unmerge.recipes import merge

    made: dict[str, Path] = {}

    def make(
        weights: dict[str, float], method: str = "task_arithmetic", base: Path | None = None, dtype: str = "bfloat16", seed: int = 0, **more: Any
    ) -> Path:
        configuration = {
            "merge_method": method,
            "base_model": str(base or zoo / "zoo-base"),
            "dtype": dtype,
            "models": [{"model": str(zoo / "known" / name), "parameters": {"weight": weight}} for name, weight in weights.items()],
            **more,
        }
        key = json.dumps([configuration, seed])
        if key not in made:
            folder = tmp_path_factory.mktemp("merged")
            (folder / "merge.yml").write_text(yaml.safe_dump(configuration))
            merge(folder / "merge.yml", folder / "target", seed)
            made[key] = folder / "target"
        return made[key]

    return make


@pytest.fixture(scope="session")
def audit_record() -> Audit:
    """An audit that has everything: a group, blind and missing modules, what could not be seen, a verification, a recipe, clashing licences."""
    from unmerge.auditing import Audit
    from unmerge.auditing.licences import Licence, judge
    from unmerge.core.records import Source, environment
    from unmerge.decomposition import Decomposition
    from unmerge.decomposition.result import Absent, Component, TestReport, Unexplained
    from unmerge.recipes.record import Acted, KindProof, Proof, RecoveredRecipe, Rival
    from unmerge.verification.record import (
        Change,
        Control,
        Dose,
        MeasuredTask,
        Power,
        Prediction,
        Survival,
        Verification,
        VerifiedComponent,
        Way,
    )

    modules = ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj")
    tensors = [f"model.layers.{layer}.{module}.weight" for layer in range(12) for module in modules]
    blind, missing = tensors[4], tensors[9]
    found = {"code": 0.8, "<b>style</b>": 0.45, "maths": 0.3}
    components = [
        Component(
            name=name,
            coefficient=value,
            interval=(value - 0.02, value + 0.01),
            share=value * 0.8,
            containment=0.98,
            p_value=1e-20,
            q_value=3e-20,
            group=["maths-v2"] if name == "maths" else [],
            agreement=0.97,
            by_tensor={tensor: value + 0.001 * place for place, tensor in enumerate(tensors) if tensor not in (blind, missing)},
        )
        for name, value in found.items()
    ]
    hashes = {"model.safetensors": "0" * 63 + "a", "config.json": "0" * 63 + "b"}
    source = Source(path="models/merged", sha256=hashes)
    decomposition = Decomposition(
        method="certificate",
        target=source,
        base=Source(path="models/base", sha256=hashes),
        dictionary={
            name: Source(path=f"adapters/{name}", sha256={"adapter_model.safetensors": "c" * 64}) for name in (*found, "maths-v2", "law", "tiny")
        },
        components=components,
        absent=[
            Absent(name="law", coefficient=0.0, containment=0.1, p_value=0.4, detection_limit=0.12),
            Absent(name="tiny", coefficient=0.0, containment=0.05, p_value=0.8, detection_limit=None),
        ],
        unexplained=Unexplained(share=0.12, rounding_share=0.01, rank=8, components=1),
        reconstruction_error=0.3464,
        one_minus_cosine_squared=0.11,
        condition_number=1.4,
        norm=5.0,
        tensors=48,
        entries=1_000_000,
        test=TestReport(hypothesis="it is absent", level=0.001, confidence=0.95, estimator="oblique", blind=[blind]),
        skipped=[],
        base_check=None,
        warnings=["tiny records the base other, not base"],
        seconds=2.0,
        environment=environment(),
    )
    tasks = {"coding": "code", "style": "<b>style</b>", "sums": "maths"}
    before = {"coding": 0.96875, "style": 1.0, "sums": 0.875, "copy": 1.0}
    after = {"coding": 0.03125, "style": 0.0, "sums": 0.5}

    def measured(task: str) -> VerifiedComponent:
        name, drop = tasks[task], before[task] - after[task]
        gone = after[task] < 0.2
        others = [other for other in before if other != task]
        changes = [
            Change(
                task=other,
                kind="general" if other == "copy" else "skill",
                before=before[other],
                after=before[other] - 0.015625,
                change=-0.015625,
                interval=(-0.05, 0.0),
                p_value=1.0,
            )
            for other in others
        ]
        scores = {change.task: change.after for change in changes} | {task: after[task]}
        return VerifiedComponent(
            removed=name,
            coefficient=found[name],
            tasks=[task],
            items=64,
            before=before[task],
            after=after[task],
            drop=drop,
            interval=(drop - 0.05, drop + 0.05),
            relative_drop=drop / before[task],
            p_value=1e-12,
            adjusted_p_value=3e-12,
            prediction=Prediction(
                before=0.98, after=0.0, falls=[task], stays=others, curve=[(0.0, 0.0), (1.0, 1.0)], beside=[(0.0, 0.1), (1.0, 1.0)]
            ),
            changes=changes,
            mean_fall=0.015625,
            mean_rise=0.0,
            mean_absolute_change=0.015625,
            mean_absolute_change_of_present=0.015625,
            general_change=0.015625,
            selectivity=drop / 0.015625,
            controls=[
                Control(kind="absent atom", atom="law", coefficient=found[name], before=before[task], after=before[task], p_value=1.0, verified=False)
            ],
            doses=[
                Dose(
                    multiple=multiple,
                    coefficient=multiple * found[name],
                    predicted=1 - multiple / 2,
                    predicted_beside=1.0,
                    score=max(before[task] - multiple * drop, 0.0),
                )
                for multiple in (0.0, 0.5, 1.0, 1.5)
            ],
            ways=[
                Way(
                    name="whole",
                    after=after[task],
                    mean_absolute_change=0.015625,
                    general_change=0.015625,
                    largest_fall=("copy", 0.015625),
                    scores=scores,
                )
            ],
            base_alone=dict.fromkeys(before, 0.0),
            verdict="verified" if gone else "not specific",
            because=[f"{task} falls by {drop:.3f}"],
            survival=None if gone else Survival(cause="another component carries it", evidence="code scores .4 on sums"),
        )

    verification = Verification(
        target=source,
        base=source,
        dictionary={},
        method="certificate",
        power=Power(level=0.01, power=0.95, fall=0.64, needed=12, small_fall=0.1, needed_for_small=200, short=[]),
        tasks=[
            MeasuredTask(name=task, kind="general" if task == "copy" else "skill", items=64, scorer="exact match", base=0.0, before=score)
            for task, score in before.items()
        ],
        components=[measured(task) for task in tasks],
        without_task=[],
        least_disturbing="whole",
        items=None,
        seed=0,
        warnings=[],
        seconds=20.0,
        environment=environment(),
    )
    licences = [
        Licence(of="merged", role="target", trouble="no README.md"),
        Licence(of="base", role="base", stated=["apache-2.0"], spdx=["Apache-2.0"], terms=[], card="d" * 64),
        Licence(of="code", role="component", stated=["gpl-3.0"], spdx=["GPL-3.0"], terms=["share-alike"], card="e" * 64),
        Licence(of="<b>style</b>", role="component", stated=["cc-by-nc-4.0"], spdx=["CC-BY-NC-4.0"], terms=["non-commercial"], card="f" * 64),
        Licence(of="maths", role="component", stated=["llama3"], terms=["use-restrictions"], card="0" * 64),
        Licence(
            of="maths-v2", role="candidate", stated=["other"], name="house rules", link="https://example.org/rules", trouble="its terms are not known"
        ),
    ]
    recipe = RecoveredRecipe(
        answer="recipe",
        says="merged is a ties of code.",
        method="ties",
        parameters={"models": {"code": {"weight": 0.8}}, "density": 0.5},
        acted={"code": Acted(coefficient=0.8, interval=(0.798, 0.802))},
        scale_free=True,
        identical_share=0.98,
        proof=Proof(
            identical_share=0.98,
            reconstruction_error=0.001,
            by_kind={"mlp.up_proj.weight": KindProof(changed=1000, identical=980, largest_difference=0.001)},
        ),
        rivals=[Rival(method="task_arithmetic", parameters={}, identical_share=0.42, apart="small changes are missing")],
        configuration={"merge_method": "ties", "base_model": "base", "models": [{"model": "code", "parameters": {"weight": 0.8}}]},
        looked=["linear", "ties"],
        target=source,
        base=source,
        dictionary={},
        seconds=9.0,
        environment=environment(),
    )
    return Audit(
        name="merged",
        base_name="base",
        made="2026-01-02T03:04:05+00:00",
        decomposition=decomposition,
        recipe=recipe,
        verification=verification,
        licences=judge(licences, strangers=1),
        environment=environment(),
    )


@pytest.fixture(scope="session")
def family_record(audit_record: Audit) -> Audit:
    """The same with a component that acts otherwise in parts, a relative, and one that may be either and was subtracted."""
    from unmerge.auditing.licences import judge
    from unmerge.decomposition.result import ProfilePart

    code, style, maths = audit_record.decomposition.components
    parts = [("0-5", "self_attn", 0.9), ("0-5", "mlp", 0.7), ("6-11", "", 0.8)]
    profile = [ProfilePart(layers=layers, kind=kind, coefficient=value, interval=(value - 0.01, value + 0.02)) for layers, kind, value in parts]
    components = [
        code.model_copy(update={"identity": "exact", "uniform": False, "profile": [*profile, ProfilePart(layers="", kind="", coefficient=0.0)]}),
        style.model_copy(update={"identity": "relative", "similarity": 0.83, "similarity_interval": (0.78, 0.87), "uniform": True}),
        maths.model_copy(update={"identity": "undecided", "coefficient": -0.3, "interval": (-0.32, -0.29), "similarity": 0.98}),
    ]
    roles = {"<b>style</b>": "relative"}
    licences = [licence.model_copy(update={"role": roles.get(licence.of, licence.role)}) for licence in audit_record.licences.licences]
    found = audit_record.decomposition.model_copy(update={"components": components})
    return audit_record.model_copy(update={"decomposition": found, "licences": judge(licences, strangers=1), "verification": None})
