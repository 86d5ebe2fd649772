"""The prompt enhancer: its data by reverse engineering, and a tiny language model trained and used."""

import json
import random
from pathlib import Path

import pytest

from flywheel.cases.events import Case
from flywheel.core.errors import UsageError
from flywheel.presets import Enhancer
from flywheel.remedies.enhancer import answer, enhance, load_enhancer, parse
from flywheel.remedies.enhancer_data import classify, degrade, examples, load_examples, quotations, write
from flywheel.remedies.held_out import HeldOut
from flywheel.signals.suite import Prompt, write_rows
from tests.flywheel.rounds.test_sample import checkpoint  # noqa: F401 - a fixture
from tests.flywheel.signals.test_judge import Server, server  # noqa: F401 - a fixture

FINE = [
    "a woman in a red coat, soft morning light, rough stone wall in the background, cinematic photo",
    'a shop sign with the word "OPEN" on the left, neon glow, dark street in the background',
    "three green stars on a white card",
    "a bowl of fruit on a wooden table, warm light, still life painting",
    'a poster that says "SALE" above and "TODAY ONLY" below, minimal style',
    "two blue circles on a yellow background",
]


def test_enhancer_rewrites_requests_and_leaves_good_prompts_and_quotes_alone():
    assert enhance("please draw me 2 red  circles") == "two red circles"
    assert enhance("the word “2 CATS” in red") == 'the word "2 CATS" in red'
    assert enhance("two red circles") is None


def test_classes():
    assert [classify(c) for c in FINE] == ["Portrait", "Text", "General", "General", "Complex Text", "General"]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("fine", FINE)
def test_a_degraded_prompt_keeps_its_quotes_and_its_reasoning_says_what_was_lost(fine: str, seed: int):
    found = degrade(fine, random.Random(seed))
    assert found and found.fine == fine and found.short != fine
    assert quotations(found.short) == quotations(fine)
    assert found.short.strip() and found.kind in found.reasoning
    for word in set(fine.replace(",", "").lower().split()) - set(found.short.replace(",", "").lower().split()):
        spoken = "colloquial" in found.degradations and word in ("one", "two", "three")
        assert spoken or word in found.reasoning.lower(), (word, found)


def test_no_example_is_near_an_evaluation_prompt_and_classes_of_cases_come_first():
    held_out = HeldOut(["three green stars on a white card", "a bowl of fruits on a wooden table"])
    made = examples(FINE, held_out, count=3, seed=0, kinds={"Text": 2, "Complex Text": 1})
    assert [e.kind for e in made[:2]] == ["Text", "Complex Text"]
    everything = examples(FINE, held_out, count=100, seed=0, kinds={})
    assert all("stars" not in e.fine for e in everything) and len(everything) == 5


def test_a_suite_case_is_only_tested_on_and_another_is_trained_on_with_the_wording_that_passed(tmp_path: Path):
    suite = [Prompt("p1", "pls draw 2 red squares", "t2i", (), ({"verifier": "count", "capability": "count"},))]
    cases = [
        Case("c1", 1, "count", "prompt_enhancement", "p1", "pls draw 2 red squares", "routed"),
        Case("c2", 1, "count", "prompt_enhancement", "feedback-1", "gimme a big cat", "routed"),
    ]
    rewritten = {"c1": "two red squares", "c2": "a large cat, centred, soft light"}
    write(tmp_path, cases, FINE, suite, rewritten, count=4, seed=0)
    trained = load_examples(tmp_path / "train.jsonl")
    assert [e.fine for e in trained if e.short == "gimme a big cat"] == ["a large cat, centred, soft light"]
    assert not any("red squares" in e.fine + e.short for e in trained)
    tested = [json.loads(line) for line in (tmp_path / "regression.jsonl").read_text().splitlines()]
    assert [(t["case_id"], len(t["checks"])) for t in tested] == [("c1", 1), ("c2", 0)]


def test_answers_are_read_back():
    assert parse(answer("light is open", "a cat in the sun")) == ("light is open", "a cat in the sun")
    assert parse(" a cat ") == (None, "a cat")


def test_an_unknown_model_is_the_users_to_fix(tmp_path: Path):
    with pytest.raises(UsageError, match="no causal LM"):
        load_enhancer(Enhancer(backend=str(tmp_path / "none")))("a cat")


def test_an_endpoint_enhances_once_and_its_silence_is_told(server: Server, tmp_path: Path):  # noqa: F811
    server.replies = [(200, {"reasoning": "light is open", "prompt": "a cat in soft light"})]
    better = load_enhancer(Enhancer(backend=server.url, model="lm"), tmp_path)
    assert better("a cat") == better("a cat") == "a cat in soft light" and better("a cat in soft light") is None
    assert len(server.requests) == 2 and "Keep every quoted text" in server.requests[0]["messages"][0]["content"]
    server.replies = [(400, "no")]
    with pytest.raises(UsageError, match="run again later"):
        better("a dog")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Qwen3 with a byte-level tokenizer, both made here."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from flywheel.core.torchvision_shim import declare_operators

    declare_operators()
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        FINE, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )
    config = Qwen3Config(
        vocab_size=len(wrapped), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=512, tie_word_embeddings=True,
        eos_token_id=wrapped.eos_token_id, pad_token_id=wrapped.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("qwen")
    import torch

    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


def test_sft_then_grpo_through_trl_then_use(tiny: Path, tmp_path: Path):
    from flywheel.remedies import enhancer
    from flywheel.remedies import enhancer_training as training

    write(tmp_path, [], FINE, [Prompt("p", "unrelated evaluation", "t2i", (), ())], {}, count=6, seed=0)
    data = tmp_path / "train.jsonl"
    found = training.fine_tune(str(tiny), data, tmp_path / "sft", steps=12, batch=4, lora=0, seed=0, learning_rate=1e-2)
    assert found["last_loss"] < 0.75 * found["first_loss"]
    tuned = training.reinforce(
        str(tmp_path / "sft"),
        data,
        tmp_path / "grpo",
        steps=3,
        batch=4,
        lora=4,
        seed=0,
        new_tokens=24,
        learning_rate=0.1,
    )
    assert 0 <= tuned["last_reward"] <= 2
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("sft", "grpo")]
    assert weights[0] != weights[1]
    enhancer.NEW_TOKENS = 16
    better = load_enhancer(Enhancer(backend=str(tmp_path / "grpo")))
    assert better("a cat") == better("a cat")


def test_pictures_of_a_frozen_checkpoint_are_a_reward(checkpoint: Path, tmp_path: Path):  # noqa: F811
    from flywheel.remedies.enhancer_training import Drawn

    checks = [{"verifier": "object", "capability": "object", "shape": s} for s in ("circle", "star")]
    row = {"prompt_id": "a", "prompt": "a red circle on the left, soft light", "task": "t2i", "checks": checks}
    edit = row | {"prompt_id": "b", "task": "ti2i", "references": ["r.png"]}
    drawn = Drawn(checkpoint, write_rows(tmp_path / "prompts.jsonl", [row, edit]), side=32)
    (asked,) = drawn.rows()  # an edit cannot be drawn without its reference
    assert asked["short"] != row["prompt"] and json.loads(asked["checks"]) == checks
    answers = [answer("r", row["prompt"]), "no reasoning", answer("r", "x")]
    rewards = drawn(answers, [asked["checks"], asked["checks"], ""])
    assert all(0 <= r <= 1 for r in rewards[:2]) and rewards[2] is None
    assert rewards == drawn(answers, [asked["checks"], asked["checks"], ""])


def test_rewards_know_kept_and_invented_text_and_form():
    from flywheel.remedies.enhancer_training import form_reward, text_reward

    kept = answer("r", 'a sign that says "OPEN" at night')
    lost, invented = answer("r", "a sign at night"), answer("r", 'a sign "OPEN" and "SHUT"')
    short = ['a sign "OPEN"'] * 3
    assert text_reward([kept, lost, invented], short) == [1.0, 0.0, 0.5]
    assert form_reward([kept, "a sign"], short[:2]) == [1.0, pytest.approx((1 + 2 / 3) / 3)]
