"""What other libraries had set is as it was, after a block that keeps them quiet and after an error in it."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import datasets
import huggingface_hub.utils
import numpy as np
import pytest
import torch
import transformers.utils.logging as messages

from unmerge.core.quiet import no_bars, quiet, same_random_state, silent_transformers


def state() -> dict[str, object]:
    """The global state of logging, bars, warnings and generators."""
    return {
        "logging": logging.root.manager.disable,
        "verbosity": messages.get_verbosity(),
        "transformers": messages.is_progress_bar_enabled(),
        "hub": huggingface_hub.utils.are_progress_bars_disabled(),
        "datasets": datasets.are_progress_bars_disabled(),
        "warnings": list(warnings.filters),
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),  # type: ignore[index, union-attr]  # noqa: NPY002
        "torch": torch.random.get_rng_state().tolist(),
    }


@pytest.fixture(params=[True, False], ids=["talkative", "silent"])
def before(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """Two states that a program may be in; what was there is put back."""
    verbosity, bars = messages.get_verbosity(), messages.is_progress_bar_enabled()
    hub, own = huggingface_hub.utils.are_progress_bars_disabled(), datasets.are_progress_bars_disabled()
    messages.set_verbosity(logging.INFO if request.param else logging.CRITICAL)
    (messages.enable_progress_bar if request.param else messages.disable_progress_bar)()
    (datasets.enable_progress_bars if request.param else datasets.disable_progress_bars)()
    huggingface_hub.utils.disable_progress_bars()  # the hub alone
    logging.disable(logging.NOTSET if request.param else logging.ERROR)
    yield state()
    logging.disable(logging.NOTSET)
    messages.set_verbosity(verbosity)
    (messages.enable_progress_bar if bars else messages.disable_progress_bar)()
    (huggingface_hub.utils.disable_progress_bars if hub else huggingface_hub.utils.enable_progress_bars)()
    (datasets.disable_progress_bars if own else datasets.enable_progress_bars)()


def everything() -> None:
    """What a block might do."""
    transformers_seed: Callable[[int], None] = torch.manual_seed  # type: ignore[assignment]
    transformers_seed(7)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002


@pytest.mark.parametrize("block", [quiet, silent_transformers, lambda: no_bars("transformers"), lambda: no_bars("datasets"), same_random_state])
def test_all_is_as_it_was(block: Callable[[], AbstractContextManager[None]], before: dict[str, object]) -> None:
    with block():
        if block is same_random_state:
            everything()
    assert state() == before
    with pytest.raises(ZeroDivisionError), block():
        _ = 1 / 0
    assert state() == before


def test_they_are_quiet_meanwhile() -> None:
    with silent_transformers():
        assert messages.get_verbosity() == logging.ERROR
        assert not messages.is_progress_bar_enabled()
    with no_bars("datasets"):
        assert datasets.are_progress_bars_disabled()
    with quiet():
        assert not logging.getLogger("any").isEnabledFor(logging.WARNING)
        assert logging.getLogger("any").isEnabledFor(logging.ERROR)
