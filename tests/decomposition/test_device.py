"""Large tensors on a graphics card: nothing meets what is elsewhere, and the results are the processor's."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pretend_card import CARD, PretendCard
from typer.testing import CliRunner

from unmerge.cli import app
from unmerge.core.errors import BadInput
from unmerge.core.settings import DEVICE
from unmerge.decomposition import decompose, open_base, open_dictionary, open_vector
from unmerge.decomposition.dictionary import only
from unmerge.vectors import Dense, Held, LowRank, Subtracted, chosen_device, device_for, gram

WEIGHTS = {"pirate": 0.7, "reversal": 0.5}


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> PretendCard:
    """A card for tensors of more than 1000 weights; torch's modes are a thread's own, so tensors are worked on in this one."""

    def one_by_one(tensors: Sequence[str], shapes: Mapping[str, object], work: Callable[[str], object]) -> Iterator[object]:
        return map(work, tensors)

    for room in ("unmerge.vectors.gram", "unmerge.certificate.evidence", "unmerge.certificate.refined"):
        monkeypatch.setattr(importlib.import_module(room), "each_tensor", one_by_one)
    monkeypatch.setattr("unmerge.vectors.delta.LARGE", 1000)
    monkeypatch.setattr("unmerge.vectors.device.chosen_device", lambda: CARD)
    return PretendCard()


def test_products_with_everything_there_is(card: PretendCard, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    atoms: list[Held] = [Held(f"low{place}", {"w": LowRank(torch.randn(60, 4), torch.randn(4, 50))}) for place in range(3)]
    atoms += [Held("dense", {"w": Dense(torch.randn(60, 50))}), Held("full", {"w": Subtracted(torch.randn(60, 50).bfloat16(), torch.randn(60, 50))})]
    targets = [Held("t", {"w": Subtracted(torch.randn(60, 50).bfloat16(), torch.randn(60, 50).bfloat16())}), atoms[0], atoms[3]]
    for target in targets:
        with card:
            there = gram(atoms, target)
        with monkeypatch.context() as patch:
            patch.setattr("unmerge.vectors.device.chosen_device", lambda: torch.device("cpu"))
            here = gram(atoms, target)
        for part in ("gram", "correlation", "norm_squared"):
            np.testing.assert_allclose(getattr(there, part), getattr(here, part), rtol=1e-6, atol=1e-4)
    assert {"cat", "matmul", "sub_"} <= set(card.done)


@pytest.mark.parametrize(("method", "dtype", "parameters"), [("task_arithmetic", "bfloat16", {}), ("dare_linear", "float32", {"density": 0.6})])
def test_a_certificate(
    method: str, dtype: str, parameters: dict[str, float], card: PretendCard, zoo: Path, merged: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = open_base(zoo / "zoo-base")
    dictionary = open_dictionary([zoo / "known"], base).only("self_attn")
    target = only(open_vector(merged(WEIGHTS, method, dtype=dtype, parameters=parameters), base), "self_attn")
    with card:
        there = decompose(target, dictionary, base)
    monkeypatch.setattr("unmerge.vectors.device.chosen_device", lambda: torch.device("cpu"))
    here = decompose(target, dictionary, base)
    assert {"randn", "linalg_eigh"} - set(card.done) == {"randn"}  # directions are drawn by the processor: the same on every machine
    assert [found.name for found in there.components] == [found.name for found in here.components]
    for found, other in zip(there.components, here.components, strict=True):
        assert found.coefficient == pytest.approx(other.coefficient, rel=1e-5)
    assert there.unexplained == here.unexplained


def test_a_refusal_to_meet_is_seen(card: PretendCard) -> None:
    """The pretend card itself: what torch refuses, it refuses."""
    with card:
        there, here = torch.ones(2, device=CARD), torch.ones(2)
        assert (there.device, (there + 1).device, here.device, there.cpu().device) == (CARD, CARD, here.device, here.device)
        with pytest.raises(RuntimeError, match="same device"):
            there + here
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert float((there + here.to(there)).sum()) == 4


def test_where_large_tensors_are_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEVICE, "cpu")
    assert chosen_device() == device_for((1 << 11, 1 << 11)) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv(DEVICE)
    assert chosen_device() == torch.device("cpu")
    for name in ("abacus", "cuda:99", "meta"):
        monkeypatch.setenv(DEVICE, name)
        with pytest.raises(BadInput, match=rf"--device or UNMERGE_DEVICE: expected cpu, or a card .* found {name}; leave it out"):
            chosen_device()


def test_the_option(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DEVICE, raising=False)
    arguments = ["decompose", str(zoo / "known" / "pirate"), "--dictionary", str(zoo / "known"), "--method", "nnls"]
    done = CliRunner().invoke(app, [*arguments, "--device", "cpu", "--json", str(tmp_path / "result.json")])
    assert done.exit_code == 0
    assert json.loads((tmp_path / "result.json").read_text())["device"] == "cpu"
    for others in (arguments, ["decompose", "--dictionary", str(zoo / "known"), "--check-dictionary"]):
        done = CliRunner().invoke(app, [*others, "--device", "abacus"])
        assert done.exit_code == 2
        assert "--device or UNMERGE_DEVICE: expected cpu, or a card" in done.stderr
    assert DEVICE not in os.environ
