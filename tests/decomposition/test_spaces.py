"""Every method in every space against the same method on the expanded vectors, cut to where the space looks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from typer.testing import CliRunner

from unmerge.checkpoints.write_adapter import write_adapter
from unmerge.cli import app
from unmerge.core.errors import BadInput
from unmerge.decomposition import Decomposition, Dictionary, decompose, open_base, open_dictionary, open_vector, spaces
from unmerge.decomposition.compressed import Over, compress, read_compressed
from unmerge.decomposition.dictionary import Vector
from unmerge.decomposition.mask import even_counts, mask
from unmerge.decomposition.run import METHODS
from unmerge.decomposition.spaces import SPACES, at_once
from unmerge.solvers import SOLVERS, Blocks, Problem, Solution
from unmerge.vectors import OUTSIDE, LowRank, entries, gram, kind_of, layer_of

Array = NDArray[np.float64]

LAYERS = 3
SHAPES = {
    f"model.layers.{layer}.{kind}.weight": shape
    for layer in range(LAYERS)
    for kind, shape in {"self_attn.q_proj": (12, 10), "mlp.up_proj": (16, 12)}.items()
}
OTHERS = {"model.embed_tokens.weight": (20, 12), "model.norm.weight": (12,)}
KEPT = 200
TRUTH = {"one": 0.9, "two": 0.6}
NAMES = ("one", "two", "three", "four")


@dataclass(frozen=True)
class Lab:
    """A base, four adapters and a merge of two of them in bfloat16, on disk; and all of it expanded."""

    folder: Path
    atoms: dict[str, dict[str, Array]]
    target: dict[str, Array]

    def opened(self) -> tuple[Vector, Dictionary]:
        base = open_base(self.folder / "base")
        return open_vector(self.folder / "target", base), open_dictionary([self.folder / "dictionary"], base)

    def decompose(self, **settings: str) -> Decomposition:
        target, dictionary = self.opened()
        return decompose(target, dictionary, open_base(self.folder / "base"), **({"method": "nnls"} | settings))

    def rows(self, tensor: str) -> tuple[Array, Array]:
        """Atoms (weights, n) and target (weights,) of one tensor."""
        zero = np.zeros_like(self.target[tensor])
        return np.stack([self.atoms[name].get(tensor, zero) for name in sorted(NAMES)], axis=1), self.target[tensor]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("spaces")
    torch.manual_seed(0)
    base = {name: torch.randn(shape).bfloat16() for name, shape in (SHAPES | OTHERS).items()}
    atoms: dict[str, dict[str, Array]] = {}
    shared = {tensor: torch.randn(2, into) for tensor, (_, into) in SHAPES.items()}
    for place, name in enumerate(NAMES):
        # of different sizes in different layers; the last one leaves the last layer as it is
        changed = {tensor: shape for tensor, shape in SHAPES.items() if name != "four" or f".{LAYERS - 1}." not in tensor}
        factors = {
            tensor: LowRank(0.02 * (1 + place + int(tensor.split(".")[2])) * torch.randn(out, 2), torch.randn(2, into) + 0.3 * shared[tensor])
            for tensor, (out, into) in changed.items()
        }
        write_adapter(folder / "dictionary" / name, factors, "base")
        atoms[name] = {tensor: (delta.b.double() @ delta.a.double()).numpy().reshape(-1) for tensor, delta in factors.items()}
    tuned = {}
    for tensor, values in base.items():
        change = sum(weight * atoms[name].get(tensor, np.zeros(values.numel())) for name, weight in TRUTH.items())
        tuned[tensor] = (values.double() + torch.from_numpy(change).reshape(values.shape)).bfloat16()
    tuned["model.norm.weight"] += 0.5
    for name, tensors in {"base": base, "target": tuned}.items():
        (folder / name).mkdir()
        save_file(tensors, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    target = {tensor: (tuned[tensor].double() - base[tensor].double()).numpy().reshape(-1) for tensor in base}
    return Lab(folder, atoms, target)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A compression that leaves something out of a small model, blocks of a few rows, and a hardly trained encoder."""
    monkeypatch.setattr(spaces, "ENTRIES", KEPT)
    monkeypatch.setattr(entries, "_BLOCK", 64)
    encoder = sys.modules["unmerge.solvers.sparse_autoencoder"]
    monkeypatch.setattr(encoder, "_STEPS", 20)
    encoder._encoder.cache_clear()
    yield
    encoder._encoder.cache_clear()


def expanded(lab: Lab, seen: dict[str, NDArray[np.bool_]]) -> Problem:
    """The problem over the weights that are seen, with its blocks, from the expanded vectors."""
    parts = {tensor: Problem.of(*(values[seen[tensor]] for values in lab.rows(tensor))) for tensor in seen}

    def blocks(label: Callable[[str], str]) -> Blocks:
        names = tuple(dict.fromkeys(label(tensor) for tensor in parts))
        members = [[part for tensor, part in parts.items() if label(tensor) == name] for name in names]
        return Blocks(
            names,
            np.stack([np.sum([part.gram for part in block], axis=0) for block in members]),
            np.stack([np.sum([part.correlation for part in block], axis=0) for block in members]),
            np.array([sum(part.norm_squared for part in block) for block in members]),
        )

    by_layer = blocks(lambda tensor: tensor.split(".")[2] if tensor in SHAPES else "")
    by_kind = blocks(lambda tensor: tensor.partition(".layers.")[2][2:] or tensor)
    whole = [np.sum([getattr(part, key) for part in parts.values()], axis=0) for key in ("gram", "correlation", "norm_squared")]
    return Problem(whole[0], whole[1], float(whole[2]), {"layers": by_layer, "kinds": by_kind})


def seen_by(lab: Lab, space: str) -> dict[str, NDArray[np.bool_]]:
    """Which weights a space looks at; from the expanded vectors."""
    if space == "nonzero":
        return {tensor: change != 0 for tensor, change in lab.target.items()}
    if space == "compressed":
        kept = {tensor: np.zeros(len(change), dtype=bool) for tensor, change in lab.target.items()}
        for tensor, count in even_counts({tensor: len(lab.target[tensor]) for tensor in SHAPES}, KEPT).items():
            kept[tensor][np.argsort(-np.abs(lab.rows(tensor)[0]).max(1), kind="stable")[:count]] = True
        return kept
    return {tensor: np.ones(len(change), dtype=bool) for tensor, change in lab.target.items()}


def in_space(lab: Lab, space: str, method: str) -> Solution:
    target, dictionary = lab.opened()
    looks = SPACES[space]
    return looks.solve(SOLVERS[method], looks.products(dictionary.atoms, target, iter))


def check(found: Solution, expected: Solution) -> None:
    np.testing.assert_allclose(found.coefficients, expected.coefficients, atol=1e-6)
    assert (found.named == expected.named).all()
    assert found.residual_squared == pytest.approx(expected.residual_squared, rel=1e-5)


@pytest.mark.parametrize("method", SOLVERS)
@pytest.mark.parametrize("space", ["exact", "nonzero", "compressed"])
def test_every_method_in_every_space(lab: Lab, space: str, method: str) -> None:
    check(in_space(lab, space, method), SOLVERS[method](expanded(lab, seen_by(lab, space))))


@pytest.mark.parametrize("method", SOLVERS)
def test_every_method_layer_by_layer(lab: Lab, method: str) -> None:
    """Each layer alone; then what the layers add up to, projected on each atom."""
    everywhere = seen_by(lab, "layer")
    layers: dict[str, list[str]] = {}
    for tensor in lab.target:
        layers.setdefault(tensor.split(".")[2] if tensor in SHAPES else "", []).append(tensor)
    numerator, norms = np.zeros(4), np.zeros(4)
    for tensors in layers.values():
        alone = SOLVERS[method](expanded(lab, {tensor: everywhere[tensor] for tensor in tensors}))
        squares = np.sum([(lab.rows(tensor)[0] ** 2).sum(0) for tensor in tensors], axis=0)
        numerator += alone.coefficients * squares
        norms += squares
    found = in_space(lab, "layer", method)
    np.testing.assert_allclose(found.coefficients, numerator / norms, atol=1e-6)
    assert (found.named == (numerator / np.sqrt(norms) > 0.1 * np.sqrt(expanded(lab, everywhere).norm_squared))).all()
    assert found.by_block is not None
    assert found.by_block.shape == (LAYERS + 1, 4)
    assert found.stopped.startswith("4 layers; ")


@pytest.mark.parametrize("space", SPACES)
def test_the_result_says_where_the_method_looked_and_measures_everywhere(lab: Lab, space: str) -> None:
    result = lab.decompose(space=space)
    assert result.space == space
    assert result.model_dump(mode="json")["space"] == space
    assert {component.name: component.coefficient for component in result.components} == pytest.approx(TRUTH, rel=0.1)
    given = {entry.name: entry.coefficient for entry in (*result.components, *result.absent)}
    c = np.array([given[name] for name in sorted(NAMES)])
    whole, seen = expanded(lab, seen_by(lab, "exact")), expanded(lab, seen_by(lab, space))
    assert result.reconstruction_error == pytest.approx(np.sqrt(whole.residual_squared(c) / whole.norm_squared))
    assert result.unexplained.share == pytest.approx(result.reconstruction_error**2)
    assert result.reconstruction_error_in_space == pytest.approx(np.sqrt(seen.residual_squared(c) / seen.norm_squared))
    assert result.condition_number == pytest.approx(seen.condition())
    assert result.norm == pytest.approx(np.sqrt(whole.norm_squared))
    assert result.entries == sum(mask.sum() for mask in seen_by(lab, space).values())


def test_spaces_differ(lab: Lab) -> None:
    """Rounding left weights as they were, and the mask leaves most out: the oracles above are not all the same problem."""
    counts = {space: lab.decompose(space=space).entries for space in SPACES}
    assert counts["exact"] == counts["layer"] == sum(len(change) for change in lab.target.values())
    assert counts["compressed"] == KEPT
    assert KEPT < (counts["nonzero"] or 0) < (counts["exact"] or 0) - 100
    found = [in_space(lab, space, "nnls").coefficients for space in SPACES]
    assert all(np.abs(a - b).max() > 1e-6 for place, a in enumerate(found) for b in found[:place])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("space", SPACES)
def test_a_target_that_changes_nothing_where_the_method_looks(lab: Lab, space: str, method: str, tmp_path: Path) -> None:
    """The target differs from its base in one tensor that no atom touches."""
    base = open_base(lab.folder / "base")
    tensors = {tensor: base.read(tensor) for tensor in base.shapes}
    (tmp_path / "target").mkdir()
    save_file(tensors | {"model.norm.weight": tensors["model.norm.weight"] + 1}, tmp_path / "target" / "model.safetensors")
    (tmp_path / "target" / "config.json").write_text('{"model_type": "qwen2"}')
    result = decompose(open_vector(tmp_path / "target", base), lab.opened()[1], base, method, space=space)
    assert result.components == []
    assert result.reconstruction_error == pytest.approx(1)
    assert (result.reconstruction_error_in_space is None) == (space == "compressed")


def test_a_layer_counts_by_what_it_holds_of_an_atom(lab: Lab) -> None:
    """A method that finds 1 in two layers and 0 in the others: the mean is the share of the atom's squared norm in the two."""
    target, dictionary = lab.opened()
    products = gram(dictionary.atoms, target)
    layers = list(dict.fromkeys(layer_of(tensor) for tensor in products.tensors))
    squares = {layer: np.zeros(4) for layer in layers}
    for row, tensor in enumerate(products.tensors):
        squares[layer_of(tensor)] += np.diag(products.gram[row])
    asked, two = iter(layers), {"model.layers.0", "model.layers.1"}

    def told(problem: Problem) -> Solution:
        return problem.answer(problem.shares(np.full(4, float(next(asked) in two))), violation=None, steps=1, stopped="told")

    found = SPACES["layer"].solve(told, products)
    share = sum(squares[layer] for layer in two) / sum(squares.values())
    np.testing.assert_allclose(found.coefficients, share)
    assert share[0] == 1.0, "the last layer is one that this atom leaves as it is"
    assert (share[1:] < 0.6).all()
    assert found.violation is None
    assert found.steps == len(layers)


@pytest.mark.parametrize(
    ("tensor", "layer", "kind"),
    [
        ("model.layers.3.self_attn.q_proj.weight", "model.layers.3", "model.layers.*.self_attn.q_proj.weight"),
        ("model.layers.12.mlp.experts.5.w1.weight", "model.layers.12", "model.layers.*.mlp.experts.*.w1.weight"),
        ("transformer.h.0.attn.c_attn.weight", "transformer.h.0", "transformer.h.*.attn.c_attn.weight"),
        ("model.embed_tokens.weight", OUTSIDE, "model.embed_tokens.weight"),
        ("lm_head.weight", OUTSIDE, "lm_head.weight"),
    ],
)
def test_layers_and_kinds_by_name(tensor: str, layer: str, kind: str) -> None:
    assert layer_of(tensor) == layer
    assert kind_of(tensor) == kind


def test_even_counts() -> None:
    assert even_counts({"a": 100, "b": 100}, 20) == {"a": 10, "b": 10}
    assert even_counts({"a": 100, "small": 3, "b": 100}, 23) == {"a": 10, "b": 10, "small": 3}
    assert even_counts({"a": 4, "b": 5}, 100) == {"a": 4, "b": 5}
    assert even_counts({}, 5) == {}
    sizes = {f"t{place}": size for place, size in enumerate((1, 2, 7, 7, 50, 90, 1000))}
    for asked in (1, 3, 10, 100, 500, 1157, 2000):
        counts = even_counts(sizes, asked)
        assert sum(counts.values()) == min(asked, sum(sizes.values()))
        full = [tensor for tensor, count in counts.items() if count == sizes[tensor]]
        others = [count for tensor, count in counts.items() if tensor not in full]
        assert not others or max(others) - min(others) <= 1


def test_the_mask_does_not_depend_on_the_target(lab: Lab) -> None:
    _, dictionary = lab.opened()
    found = mask(dictionary.atoms, KEPT)
    for tensor, places in found.items():
        assert places.tolist() == np.flatnonzero(seen_by(lab, "compressed")[tensor]).tolist()


@pytest.mark.parametrize("over", Over)
def test_compressed_files_hold_what_the_mask_keeps(lab: Lab, over: Over, tmp_path: Path) -> None:
    target, dictionary = lab.opened()
    record = compress(dictionary, target, open_base(lab.folder / "base"), tmp_path / "out", KEPT, over)
    back = read_compressed(tmp_path / "out")
    assert back.record == record
    assert record.over == over
    assert record.entries == KEPT == sum(len(places) for places in back.places.values())
    ranked = {
        tensor: np.abs(
            np.column_stack([*([] if over is Over.TARGET else [lab.rows(tensor)[0]]), *([] if over is Over.DICTIONARY else [change])])
        ).max(1)
        for tensor, change in lab.target.items()
    }
    for tensor, places in back.places.items():
        expected = sorted(np.argsort(-ranked[tensor], kind="stable")[: len(places)].tolist())
        assert places.tolist() == expected
        for held, values in ((back.targets[0], lab.target), *((held, lab.atoms[held.name]) for held in back.dictionary)):
            assert (tensor in held.shapes) == (tensor in values)
            if tensor in values:
                np.testing.assert_allclose(held.delta(tensor).dense().numpy(), values[tensor][places.numpy()], rtol=1e-6, atol=1e-9)
    assert set(record.dictionary) == set(NAMES)
    assert set(record.targets) == {"target"}
    assert record.dictionary["one"].sha256.keys() == {"adapter_model.safetensors", "adapter_config.json"}


@pytest.mark.parametrize("method", SOLVERS)
def test_solving_on_the_files_is_solving_in_the_space(lab: Lab, method: str, tmp_path: Path) -> None:
    target, dictionary = lab.opened()
    compress(dictionary, target, None, tmp_path / "out", KEPT)
    back = read_compressed(tmp_path / "out")
    on_files = at_once(SOLVERS[method], gram(back.dictionary, back.targets[0]))
    expected = in_space(lab, "compressed", method)
    np.testing.assert_allclose(on_files.coefficients, expected.coefficients, rtol=1e-9, atol=1e-9)
    assert (on_files.named == expected.named).all()


def test_fewer_entries_than_tensors(lab: Lab, tmp_path: Path) -> None:
    _, dictionary = lab.opened()
    record = compress(dictionary, None, None, tmp_path / "out", 3)
    assert sorted(kept.entries for kept in record.tensors.values()) == [0, 0, 0, 1, 1, 1]
    assert read_compressed(tmp_path / "out").targets == ()


def test_what_a_vector_leaves_out_stays_left_out(lab: Lab, tmp_path: Path) -> None:
    """The target lacks a tensor: on the files as in the space it is left out for all."""
    base = open_base(lab.folder / "base")
    tuned = open_vector(lab.folder / "target", base)
    lacking = next(iter(SHAPES))
    (tmp_path / "target").mkdir()
    tensors = {tensor: base.read(tensor) for tensor in base.shapes if tensor != lacking}
    save_file({t: (v.double() + tuned.delta(t).dense()).bfloat16() for t, v in tensors.items()}, tmp_path / "target" / "model.safetensors")
    (tmp_path / "target" / "config.json").write_text('{"model_type": "qwen2"}')
    target, dictionary = open_vector(tmp_path / "target", base), lab.opened()[1]
    compress(dictionary, target, base, tmp_path / "out", KEPT)
    back = read_compressed(tmp_path / "out")
    on_files = gram(back.dictionary, back.targets[0])
    in_space = SPACES["compressed"].products(dictionary.atoms, target, iter)
    assert lacking not in on_files.tensors
    assert on_files.skipped == in_space.skipped
    np.testing.assert_allclose(on_files.gram.sum(0), in_space.gram.sum(0))


def test_compression_is_taken_up_where_it_stopped(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, dictionary = lab.opened()
    done: list[str] = []

    def stop_after(count: int) -> Callable[[object], Iterator[str]]:
        def watch(items: object) -> Iterator[str]:
            for place, item in enumerate(items):  # type: ignore[arg-type,var-annotated]
                if str(item).endswith(".safetensors") and place == count:
                    raise KeyboardInterrupt
                done.append(str(item))
                yield item

        return watch

    with pytest.raises(KeyboardInterrupt):
        compress(dictionary, target, None, tmp_path / "out", KEPT, watch=stop_after(2))
    assert not (tmp_path / "out").exists()
    first = len(done)
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert written.keys() == {"places.safetensors", "four.safetensors", "one.safetensors"}
    done.clear()
    compress(dictionary, target, None, tmp_path / "out", KEPT, watch=stop_after(99))
    assert first > len(done) == 5, "the mask was not looked for again"
    assert written.items() <= {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}.items()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["compressed.json", "dictionary", "places.safetensors", "targets"]


def test_refusals(lab: Lab, tmp_path: Path) -> None:
    target, dictionary = lab.opened()
    for text, run in {
        "--space: expected one of exact, layer, nonzero, compressed, found moon; choose one of them": lambda: lab.decompose(space="moon"),
        "--entries: expected at least one entry, found 0": lambda: compress(dictionary, target, None, tmp_path / "out", 0),
        "--mask both: expected a target to make the mask from, found none": lambda: compress(dictionary, None, None, tmp_path / "out", 9, Over.BOTH),
    }.items():
        with pytest.raises(BadInput) as caught:
            run()
        assert str(caught.value).startswith(text)
    assert not list(tmp_path.iterdir())


def test_a_compressed_file_that_is_not_the_records(lab: Lab, tmp_path: Path) -> None:
    _, dictionary = lab.opened()
    compress(dictionary, None, None, tmp_path / "out", KEPT)
    file = tmp_path / "out" / "dictionary" / "one.safetensors"
    file.write_bytes((tmp_path / "out" / "dictionary" / "two.safetensors").read_bytes())
    with pytest.raises(BadInput, match=rf"{file}: expected the file that compressed.json speaks of, found another one"):
        read_compressed(tmp_path / "out")
    file.unlink()
    with pytest.raises(BadInput, match=rf"{file}: expected compressed task vectors, found no such file"):
        read_compressed(tmp_path / "out")
    (tmp_path / "out" / "compressed.json").write_text("{}")
    with pytest.raises(BadInput, match=r"expected the schema unmerge/compressed/1"):
        read_compressed(tmp_path / "out")


def command(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_commands(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    named = ["--base", lab.folder / "base", "--dictionary", lab.folder / "dictionary"]
    said = command("decompose", lab.folder / "target", *named, "--method", "nnls", "--space", "layer", "--json", tmp_path / "layer.json")
    assert "by nnls in the space layer" in " ".join(said.split())
    assert json.loads((tmp_path / "layer.json").read_text())["space"] == "layer"
    command("decompose", lab.folder / "target", *named, "--json", tmp_path / "plain.json")
    assert json.loads((tmp_path / "plain.json").read_text())["space"] == "exact"
    said = command("compress", lab.folder / "target", *named, "--entries", 50, "--out", tmp_path / "both")
    assert f"5 task vectors at 50 entries of {len(SHAPES)} tensors" in said
    assert "4 task vectors" in command("compress", *named[2:], "--entries", 50, "--out", tmp_path / "alone")
    refused = CliRunner().invoke(app, ["compress", *map(str, named), "--mask", "moon", "--out", str(tmp_path / "no")])
    assert refused.exit_code == 2
    assert "--mask: expected one of dictionary, target, both, found moon" in refused.output


def test_help_names_every_method_and_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    said = command("decompose", "--help")
    words = set(said.replace(",", " ").replace(".", " ").split())
    assert words >= set(SOLVERS)
    assert words >= set(SPACES)
