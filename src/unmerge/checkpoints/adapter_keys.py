"""The keys of an adapter's file: which module each tensor belongs to, and which part of the adapter it is.

PEFT writes ``base_model.model.MODULE.lora_A.weight``. A running model's state dict has the adapter's name in it as well
(``lora_A.default.weight``), and ``torch.compile``, FSDP, activation checkpointing and DDP put a word in front of the modules that they wrap.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from unmerge.checkpoints.adapter_config import AdapterConfig
from unmerge.checkpoints.files import GATHER, TensorFiles
from unmerge.checkpoints.forms import PARTS
from unmerge.checkpoints.tensor_names import MatchedNames
from unmerge.core.errors import BadInput

_PEFT = ("base_model", "model")
#: what torch puts before a wrapped module: anywhere, and before the whole model
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_WHOLE_MODEL = "module"
#: what PEFT puts between a wrapped module and its own tensors; the last is the base's own module
_SAVED, _COPIES = ("base_layer", "modules_to_save"), "original_module"
#: the first word of every part
_ROOTS = frozenset(part.split(".")[0] for part in PARTS)


@dataclass
class Keys:
    """The keys of one adapter, sorted.

    Attributes:
        modules: part -> key, by module.
        whole: keys of tensors that are stored whole, by tensor.
        adapter: the adapter's name in the keys, where it is in them.
        named: keys that have the adapter's name in them.
        wrapped: what the keys call a module or a whole tensor -> its name, where torch's wrappers were in it.
    """

    modules: dict[str, dict[str, str]] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)
    adapter: str | None = None
    named: list[str] = field(default_factory=list)
    wrapped: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def read(config: AdapterConfig, files: TensorFiles) -> Keys:
        """Sort the keys of a file.

        Raises:
            BadInput: a tensor that is no part of an adapter, a second copy of one, or two adapters in one file.
        """
        keys = Keys()
        split = {key: _split(key) for key in files.place}
        names = {name for _, name, _ in split.values() if name is not None}
        originals: dict[str, str] = {}
        for key, (words, name, part) in split.items():
            if part is not None:
                keys._name(files, key, name)
                parts = keys.modules.setdefault(keys._unwrapped(words), {})
                if part in parts:
                    raise unreadable(config, files, key, f"a second {part} of this module")
                parts[part] = key
                continue
            tensor, is_copy, saved_for = _without_saving(keys._unwrapped(words), names)
            keys._name(files, key, saved_for)
            if not tensor.endswith((".weight", ".bias")) or "lora_" in tensor or "trainable_tokens" in tensor:
                raise unreadable(config, files, key, "a tensor of another kind")
            held = originals if is_copy else keys.whole
            if 0 in files.shapes[key]:
                raise unreadable(config, files, key, f"shape {files.shapes[key]}", GATHER)
            if tensor in held:
                raise unreadable(config, files, key, f"a second copy of {tensor}")
            held[tensor] = key
        keys.whole = originals | keys.whole  # where both are there, the original is the base's own
        return keys

    @property
    def matched_names(self) -> tuple[MatchedNames, ...]:
        """The adapter's name in the keys, as a match of names."""
        if not self.named:
            return ()
        key = self.named[0]
        return (MatchedNames(f"*.{self.adapter}.*", "*", len(self.named), (key, key.replace(f".{self.adapter}", "", 1))),)

    def _name(self, files: TensorFiles, key: str, name: str | None) -> None:
        if name is None:
            return
        if self.adapter not in (None, name):
            raise BadInput(
                expected="the tensors of one adapter",
                found=f"two ({self.adapter} and {name})",
                where=files.place[key],
                tensor=key,
                hint="save each adapter by itself (save_pretrained writes one folder for each)",
            )
        self.adapter = name
        self.named.append(key)

    def _unwrapped(self, words: list[str]) -> str:
        clean = _without_wrappers(words)
        name = ".".join(clean)
        if clean != _without_peft(words):
            self.wrapped[".".join(_without_peft(words))] = name
        return name


def _split(key: str) -> tuple[list[str], str | None, str | None]:
    """(words of the module, the adapter's name, the part); of a tensor stored whole (all its words, None, None)."""
    words = key.split(".")
    root = next((place for place, word in enumerate(words) if word in _ROOTS), None)
    if root is None:
        return words, None, None
    for name, tail in ((None, words[root + 1 :]), (words[root + 1] if len(words) > root + 1 else None, words[root + 2 :])):
        part = ".".join([words[root], *tail])
        if part in PARTS:
            return words[:root], name, PARTS[part]
    return words, None, None


def _without_wrappers(words: list[str]) -> list[str]:
    kept = [word for word in words if word not in _WRAPPERS]
    return _without_peft(kept[1:] if kept[:1] == [_WHOLE_MODEL] else kept)


def _without_peft(words: list[str]) -> list[str]:
    return words[2:] if tuple(words[:2]) == _PEFT else words


def _without_saving(tensor: str, names: set[str]) -> tuple[str, bool, str | None]:
    """(a tensor stored whole without PEFT's words, whether it is the base's own, the adapter's name in it)."""
    words, kept, name = tensor.split("."), list[str](), None
    for place, word in enumerate(words):
        if word in (*_SAVED, _COPIES):
            continue
        if place and words[place - 1] in (*_SAVED, _COPIES) and word in names | {"default"}:
            name = word
            continue
        kept.append(word)
    return ".".join(kept), _COPIES in words, name


def unreadable(config: AdapterConfig, files: TensorFiles, key: str, found: str, hint: str | None = None) -> BadInput:
    """The error for a tensor that is no part of an adapter to linear or embedding modules."""
    return BadInput(
        expected=f"tensors of a {config.kind} adapter to linear or embedding modules",
        found=found,
        where=files.place[key],
        tensor=key,
        hint=hint or "merge it into its base (merge_and_unload) and give the checkpoint",
    )
