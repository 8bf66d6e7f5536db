"""Names that belong together, told by structure alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from unmerge.checkpoints.tensor_names import match_names, renamed, summary
from unmerge.core.errors import BadInput

HERE = Path("HERE")
Q = "self_attn.q_proj.weight"
LANGUAGE = [f"language_model.model.layers.{layer}.{Q}" for layer in (0, 1)]
VISION = [f"vision_tower.vision_model.encoder.layers.{layer}.{Q}" for layer in (0, 1)]

#: ours, the reference's, what ours are there; all shapes are equal, so that words alone decide
PAIRS: dict[str, tuple[list[str], list[str], dict[str, str]]] = {
    "gpt2 in transformers and on the hub": (
        ["transformer.h.0.attn.c_attn.weight", "transformer.wte.weight"],
        ["h.0.attn.c_attn.weight", "wte.weight", "wpe.weight"],
        {"transformer.h.0.attn.c_attn.weight": "h.0.attn.c_attn.weight", "transformer.wte.weight": "wte.weight"},
    ),
    "a model without its head, and with it": (
        ["encoder.layer.3.attention.self.query.weight"],
        ["bert.encoder.layer.3.attention.self.query.weight", "bert.encoder.layer.4.attention.self.query.weight"],
        {"encoder.layer.3.attention.self.query.weight": "bert.encoder.layer.3.attention.self.query.weight"},
    ),
    "two towers of one shape, words in another order": (
        [f"model.language_model.layers.0.{Q}", f"model.vision_tower.encoder.layers.0.{Q}"],
        [*LANGUAGE, *VISION],
        {f"model.language_model.layers.0.{Q}": LANGUAGE[0], f"model.vision_tower.encoder.layers.0.{Q}": VISION[0]},
    ),
    "the language model alone": ([f"model.layers.1.{Q}"], [*LANGUAGE, f"visual.blocks.1.{Q}"], {f"model.layers.1.{Q}": LANGUAGE[1]}),
    "wrappers in the middle": (
        [f"_fsdp_wrapped_module.model.layers.0._fsdp_wrapped_module.{Q}", f"module._orig_mod.model.layers.1.{Q}"],
        [f"model.layers.{layer}.{Q}" for layer in (0, 1)],
        {
            f"_fsdp_wrapped_module.model.layers.0._fsdp_wrapped_module.{Q}": f"model.layers.0.{Q}",
            f"module._orig_mod.model.layers.1.{Q}": f"model.layers.1.{Q}",
        },
    ),
    "experts as Mixtral has them": (
        ["model.layers.0.mlp.experts.7.gate_proj.weight", "model.layers.0.mlp.gate.weight"],
        ["model.layers.0.block_sparse_moe.experts.7.w1.weight", "model.layers.0.block_sparse_moe.gate.weight"],
        {
            "model.layers.0.mlp.experts.7.gate_proj.weight": "model.layers.0.block_sparse_moe.experts.7.w1.weight",
            "model.layers.0.mlp.gate.weight": "model.layers.0.block_sparse_moe.gate.weight",
        },
    ),
    "norms as TensorFlow had them": (
        ["bert.embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.bias"],
        ["bert.embeddings.LayerNorm.beta", "bert.embeddings.LayerNorm.gamma"],
        {
            "bert.embeddings.LayerNorm.weight": "bert.embeddings.LayerNorm.gamma",
            "bert.embeddings.LayerNorm.bias": "bert.embeddings.LayerNorm.beta",
        },
    ),
    "another layer is another tensor": ([f"transformer.layers.2.{Q}"], [f"layers.0.{Q}", f"layers.1.{Q}"], {}),
    "a classifier is not the head of a language model": (["classifier.dense.weight"], ["lm_head.dense.weight", "roberta.pooler.dense.weight"], {}),
    "one tower is not another": ([f"model.vision_tower.encoder.layers.0.{Q}"], [f"language_model.model.layers.0.{Q}"], {}),
    "what has its own name is not another's": ([f"x.layers.0.{Q}", f"layers.0.{Q}"], [f"layers.0.{Q}"], {}),
    "the nearest takes it": (
        [f"language_model.layers.0.{Q}", f"vision_tower.encoder.layers.0.{Q}"],
        [f"layers.0.{Q}"],
        {f"language_model.layers.0.{Q}": f"layers.0.{Q}"},
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_names_of_one_tensor(name: str) -> None:
    ours, reference, expected = PAIRS[name]
    assert match_names(dict.fromkeys(ours, (4, 4)), dict.fromkeys(reference, (4, 4)), HERE) == expected


def test_shapes_decide_between_names_that_are_equally_near() -> None:
    reference = {f"thinker.model.layers.0.{Q}": (8, 8), f"talker.model.layers.0.{Q}": (4, 4)}
    assert match_names({f"model.layers.0.{Q}": (4, 4)}, reference, HERE) == {f"model.layers.0.{Q}": f"talker.model.layers.0.{Q}"}
    assert match_names({f"model.layers.0.{Q}": (2, 2)}, reference, HERE) == {}


def test_a_shape_that_differs_in_one_layer_is_another_module() -> None:
    ours = {f"a.layers.{layer}.{Q}": (4, 4) for layer in (0, 1)}
    assert match_names(ours, {f"layers.0.{Q}": (4, 4), f"layers.1.{Q}": (4, 6)}, HERE) == {}
    assert len(match_names(ours, {f"layers.0.{Q}": (4, 4), f"layers.1.{Q}": (4, 4)}, HERE)) == 2


def test_transposed_matrices_and_longer_vocabularies_match() -> None:
    assert match_names({"transformer.h.0.c.weight": (3, 4)}, {"h.0.c.weight": (4, 3)}, HERE) == {"transformer.h.0.c.weight": "h.0.c.weight"}
    assert match_names({"transformer.wte.weight": (12, 4)}, {"wte.weight": (10, 4)}, HERE) == {"transformer.wte.weight": "wte.weight"}
    assert match_names({"transformer.h.0.c.weight": (12, 4)}, {"h.0.c.weight": (10, 4)}, HERE) == {}


@pytest.mark.parametrize("turned", [False, True], ids=["one of ours, two of theirs", "two of ours, one of theirs"])
def test_what_may_be_one_or_another_is_refused(turned: bool) -> None:
    one, two = {f"model.layers.0.{Q}": (4, 4)}, {f"thinker.layers.0.{Q}": (4, 4), f"talker.layers.0.{Q}": (4, 4)}
    with pytest.raises(BadInput) as caught:
        match_names(*((two, one) if turned else (one, two)), HERE)
    found = (
        f"HERE, tensor thinker.layers.0.{Q}: expected names that tell the tensors apart, "
        f"found one that may be model.layers.0.{Q}, as may talker.layers.0.{Q}; "
        if turned
        else f"HERE, tensor model.layers.0.{Q}: expected names that tell the tensors apart, "
        f"found one that may be thinker.layers.0.{Q} or talker.layers.0.{Q}; "
    )
    assert str(caught.value) == found + "save it with the class of the base (transformers' save_pretrained), so that both have the same names"


def test_the_record_puts_together_what_differs_in_one_way() -> None:
    names = {f"transformer.h.{layer}.attn.c_attn.weight": f"h.{layer}.attn.c_attn.weight" for layer in range(3)} | {
        f"_m.layers.0._m.{Q}": f"layers.0.{Q}"
    }
    found = [(one.own, one.reference, one.tensors, one.example[0]) for one in summary(names)]
    assert found == [("transformer", "", 3, "transformer.h.0.attn.c_attn.weight"), ("_m.layers.*._m", "layers.*", 1, f"_m.layers.0._m.{Q}")]


def test_others_are_renamed_by_the_same_rule() -> None:
    names = {f"model.language_model.layers.0.{Q}": f"model.layers.0.{Q}"}
    assert renamed("model.language_model.layers.12.mlp.up_proj.weight", names) == "model.layers.12.mlp.up_proj.weight"
    assert renamed("model.visual.blocks.0.proj.weight", names) == "model.visual.blocks.0.proj.weight"
    assert renamed(f"x.layers.3._m.{Q}", {f"x.layers.0._m.{Q}": f"layers.0.{Q}"}) == f"layers.3.{Q}"
    assert renamed("h.1.mlp.c_fc.weight", {"h.0.attn.c_attn.weight": "transformer.h.0.attn.c_attn.weight"}) == "transformer.h.1.mlp.c_fc.weight"
