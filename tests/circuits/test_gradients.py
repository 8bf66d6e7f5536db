"""Per-sample gradients against finite differences in float64, for every divergence and kind of tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unmerge.circuits.divergences import DIVERGENCES, NormalisedSquaredError, kl, published_moving_reference, squared_error
from unmerge.circuits.landscape import Landscape, squared_norms
from unmerge.circuits.references import Fixed, mean_of_batch, random_in_batch
from unmerge.core.errors import BadInput
from unmerge_lab.circuits.toys import Autoencoder, Perceptron


def convolution() -> nn.Module:
    """A model with tensors of one, two and four dimensions."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU(), nn.Flatten(), nn.Linear(8, 3))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "autoencoder": (lambda: Autoencoder(5, 2), (5,)),
    "perceptron": (lambda: Perceptron(4, 4, 2), (4,)),
    "convolution": (convolution, (1, 4, 4)),
}


def double(model: Callable[[], nn.Module], shape: tuple[int, ...], samples: int = 3) -> tuple[Landscape, Tensor, Tensor]:
    torch.manual_seed(3)
    landscape = Landscape.of(model().double())
    x = torch.rand(1, samples, *shape, dtype=torch.float64) + 0.1
    return landscape, x, landscape.outputs(x.roll(1, 1))


def finite_differences(landscape: Landscape, x: Tensor, references: Tensor, sample: int, h: float = 1e-5) -> dict[str, Tensor]:
    """Central differences of one sample's divergence in every parameter."""
    result = {}
    for name, tensor in landscape.parameters.items():
        flat = torch.zeros(tensor.numel(), dtype=torch.float64)
        for place in range(len(flat)):
            sides = []
            for sign in (h, -h):
                step = torch.zeros_like(tensor).flatten()
                step[place] = sign
                moved = landscape.outputs(x, landscape.parameters | {name: tensor + step.view_as(tensor)})
                sides.append(landscape.divergence(moved[0, sample], references[0, sample]))
            flat[place] = (sides[0] - sides[1]) / (2 * h)
        result[name] = flat.view(tensor.shape[1:])
    return result


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("divergence", ["squared_error", "kl", "normalised"])
def test_gradients_are_those_of_finite_differences(model: str, divergence: str) -> None:
    landscape, x, references = double(*MODELS[model])
    chosen = NormalisedSquaredError.of(references[0]) if divergence == "normalised" else DIVERGENCES[divergence]
    landscape = replace(landscape, divergence=chosen)
    gradients = landscape.gradients(x, references)
    for sample in range(x.shape[1]):
        expected = finite_differences(landscape, x, references, sample)
        error = torch.cat([(gradients[name][0, sample] - expected[name]).flatten() for name in expected]).norm()
        assert error < 1e-6 * torch.cat([part.flatten() for part in expected.values()]).norm()


def test_the_reference_is_held_fixed() -> None:
    """The true gradient is 2 (f - f_r) J; the published one (2 f - f_r) J, and it has a name of its own."""
    landscape, x, references = double(*MODELS["perceptron"])
    f = landscape.outputs(x)
    jacobians = [
        replace(landscape, divergence=lambda output, _, o=place: output[o]).gradients(x, references)["0.weight"][0] for place in range(f.shape[2])
    ]
    for divergence, factor in ((squared_error, 2 * (f - references)), (published_moving_reference, 2 * f - references)):
        expected = sum(factor[0, :, place, None, None] * jacobian for place, jacobian in enumerate(jacobians))
        torch.testing.assert_close(replace(landscape, divergence=divergence).gradients(x, references)["0.weight"][0], expected)


def test_the_divergence_of_equals_is_zero_and_no_other_is_less() -> None:
    torch.manual_seed(0)
    f, r = torch.randn(4, 7), torch.randn(4, 7)
    for divergence in (squared_error, kl, NormalisedSquaredError(torch.rand(7))):
        assert float(divergence(f[0], f[0])) == pytest.approx(0, abs=1e-6)
        assert float(divergence(f[0], r[0])) > 0.1
    assert float(kl(f, r)) == pytest.approx(float(torch.nn.functional.kl_div(f.log_softmax(1), r.log_softmax(1), reduction="sum", log_target=True)))


def test_an_output_that_never_changes_is_left_as_it_is() -> None:
    outputs = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    assert NormalisedSquaredError.of(outputs).variance.tolist() == [1.0, 2.0]


def test_several_models_are_as_each_alone() -> None:
    torch.manual_seed(0)
    models = [Perceptron(4, 4, 1) for _ in range(3)]
    x = torch.rand(3, 5, 4)
    together = Landscape.of(models, ["0.weight"])
    references = together.outputs(x.roll(1, 1))
    for run, model in enumerate(models):
        torch.testing.assert_close(together.outputs(x)[run], model(x[run]).detach())
        alone = Landscape.of(model, ["0.weight"]).gradients(x[run : run + 1], references[run : run + 1])
        torch.testing.assert_close(together.gradients(x, references)["0.weight"][run : run + 1], alone["0.weight"])
        torch.testing.assert_close(together.run(run).outputs(x[run : run + 1])[0], model(x[run]).detach())


def test_moving_some_parameters_alone(landscape: Landscape, x: Tensor) -> None:
    direction = {name: torch.ones_like(tensor) for name, tensor in landscape.parameters.items()}
    moved = landscape.moved(direction, 0.5, ["encoder.weight"])
    torch.testing.assert_close(moved["encoder.weight"], landscape.parameters["encoder.weight"] + 0.5)
    assert torch.equal(moved["decoder.weight"], landscape.parameters["decoder.weight"])
    each = landscape.moved(direction, torch.tensor([0.0, 1.0]))
    assert torch.equal(each["decoder.weight"][0], landscape.parameters["decoder.weight"][0])
    assert not torch.equal(landscape.outputs(x, each)[1], landscape.outputs(x)[1])


def test_squared_norms_are_over_all_parameters(landscape: Landscape, x: Tensor) -> None:
    gradients = landscape.gradients(x, landscape.outputs(x.roll(1, 1)))
    joined = torch.cat([gradient.flatten(2) for gradient in gradients.values()], 2)
    torch.testing.assert_close(squared_norms(gradients), joined.norm(dim=2) ** 2)


def test_references() -> None:
    outputs = torch.arange(24.0).view(1, 2, 4, 3)
    chosen = random_in_batch(outputs, torch.Generator().manual_seed(0))
    assert not (chosen == outputs).any(), "no sample is its own reference"
    assert torch.equal(chosen.sort(2).values, outputs), "every sample is one reference, in its own batch"
    assert torch.equal(mean_of_batch(outputs, torch.Generator())[0, 1, 3], outputs[0, 1].mean(0))
    assert torch.equal(Fixed(torch.ones(3))(outputs, torch.Generator()), torch.ones(1, 2, 4, 3))


def test_parameters_that_are_not_there_are_refused() -> None:
    with pytest.raises(BadInput, match=r"names: expected a parameter \(encoder.weight, .*\), found head; take a name"):
        Landscape.of(Autoencoder(5, 2), ["head"])
    with pytest.raises(BadInput, match="names: expected parameters to move, found none"):
        Landscape.of(Autoencoder(5, 2), [])
