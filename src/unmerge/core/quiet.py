"""Keeping libraries that draw bars and tell what they do off the terminal, and leaving them as they were found."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import random
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing is printed and no warning logged while the block runs; errors are raised all the same."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def silent_transformers() -> Iterator[None]:
    """Keep transformers and PEFT from logging, warning and drawing bars while the block runs; transformers must be installed."""
    settings = importlib.import_module("transformers.utils.logging")
    level = settings.get_verbosity()
    settings.set_verbosity_error()
    try:
        with no_bars("transformers"), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what PEFT and transformers will rename is between them
            yield
    finally:
        settings.set_verbosity(level)


@contextlib.contextmanager
def no_bars(library: str) -> Iterator[None]:
    """Keep ``transformers`` (and the hub's client, which it takes along) or ``datasets`` from drawing bars while the block runs.

    Args:
        library: one of the two, which must be installed.
    """
    with contextlib.ExitStack() as stack:
        if library == "transformers":
            settings = importlib.import_module("transformers.utils.logging")
            hub = importlib.import_module("huggingface_hub.utils")
            hub_shown = not hub.are_progress_bars_disabled()
            stack.callback(hub.enable_progress_bars if hub_shown else hub.disable_progress_bars)
            if settings.is_progress_bar_enabled():
                stack.callback(settings.enable_progress_bar)
            settings.disable_progress_bar()
        else:
            datasets = importlib.import_module(library)
            if not datasets.are_progress_bars_disabled():
                stack.callback(datasets.enable_progress_bars)
            datasets.disable_progress_bars()
        yield


@contextlib.contextmanager
def same_random_state() -> Iterator[None]:
    """Whatever the block seeds and draws, leave the global generators of Python, numpy and torch as they were."""
    import numpy as np
    import torch

    own, arrays, tensors = random.getstate(), np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002, the global one is meant
    cards = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        random.setstate(own)
        np.random.set_state(arrays)  # noqa: NPY002
        torch.random.set_rng_state(tensors)
        if cards is not None:
            torch.cuda.set_rng_state_all(cards)
