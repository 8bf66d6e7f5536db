#!/bin/sh
# transformers 5: AutoTokenizer does not load a Qwen2 model's tokenizer.json as it lies. It takes vocabulary and merges from it and puts Qwen2's own
# normaliser and pre-tokeniser around them, whatever the file says, and where tokenizer_config.json names no unknown token it adds "<|endoftext|>".
#
# Expected: AutoTokenizer and PreTrainedTokenizerFast give the same tokens of the same folder, as many as the vocabulary has.
# Seen (transformers 5.23.0, tokenizers as it resolves): one token more, which mergekit's tokenizer options refuse where the model has no row for it;
# another pre-tokeniser; other tokens for the same text. Naming an unknown token in the configuration avoids the added token, not the rest.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check transformers==5.23.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

text = "- name: ann\n  age: 3\n  color: red\n"
made = Tokenizer(models.BPE())
made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
made.train_from_iterator(
    [text] * 50,
    trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
)
PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>", pad_token="<|end|>").save_pretrained("model")
Path("model/config.json").write_text(json.dumps({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}))

as_it_lies, by_auto = PreTrainedTokenizerFast.from_pretrained("model"), AutoTokenizer.from_pretrained("model")
print(type(by_auto).__name__, len(by_auto), "tokens; as the file lies:", len(as_it_lies))
print("added:", set(by_auto.get_vocab()) - set(as_it_lies.get_vocab()))
print("pre-tokeniser in the file:", as_it_lies.backend_tokenizer.pre_tokenizer)
print("pre-tokeniser in use:     ", by_auto.backend_tokenizer.pre_tokenizer)
print(as_it_lies.tokenize(text))
print(by_auto.tokenize(text))
assert set(by_auto.get_vocab()) - set(as_it_lies.get_vocab()) == {"<|endoftext|>"}, "no token is added any more"
assert as_it_lies.tokenize(text) != by_auto.tokenize(text), "the file's pre-tokeniser is in use"
PYTHON
