"""Qwen3-VL as condition encoder: the states of the open 2.1 pipeline, and what training and sampling make of them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from flywheel.core.errors import UsageError
from tests.training.tiny_models import tiny_processor, tiny_qwen3vl
from tests.training.tiny_runs import TINY, run
from training.batch import batch_loss
from training.data.loader import Loader
from training.data.plan import DataPlan, MixSource
from training.initial import build_model
from training.models.encoders import load_condition_encoder
from training.models.qwen3vl import Qwen3VL
from training.phase import prepare_with, texts_with
from training.sampling import Sampler, sample
from training.sequence import sequence_layout
from training.vae.autoencoding import fit_autoencoder


@pytest.fixture(scope="module")
def parts():
    processor = tiny_processor()
    return tiny_qwen3vl(processor), processor


@pytest.fixture(scope="module")
def encoder(parts):
    return Qwen3VL(*parts)


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    path = tmp_path_factory.mktemp("qwen3vl")
    for part in parts:
        part.save_pretrained(path)
    return path


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_states_and_slots_are_those_of_the_open_pipeline(parts, encoder, count):
    from diffusers import QwenImage21Pipeline

    model, processor = parts
    pipeline = QwenImage21Pipeline(None, vae=None, text_encoder=model, processor=processor, transformer=None)
    shown = pictures(count)
    images = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in shown] or None
    for caption in ("a red disc at the left", ""):
        theirs, _, slots = pipeline._get_qwen_prompt_embeds([caption], images, torch.device("cpu"))
        (mine,) = encoder.encode([caption], [shown])
        assert mine.shape[1] == encoder.dim == 64 and mine.std() > 0.1
        assert torch.allclose(mine, theirs[0][~slots[0]], atol=1e-6)

        runs, length = [], 0  # text tokens between slots, as the pipeline has them
        for here, before in zip(slots[0].tolist(), [False, *slots[0].tolist()], strict=False):
            if here and not before:
                runs.append(length)
                length = 0
            length += not here
        assert encoder.lead(count) == tuple(runs)
        assert int(slots.sum()) == count * 2  # a slot is 32×32 pixels


def test_states_are_taken_before_the_final_norm(parts, encoder):
    (state,) = encoder.encode(["a red disc"])
    ids = parts[1].tokenizer(
        "<|im_start|>system\nComprehend and analyze the provided prompt.<|im_end|>\n"
        "<|im_start|>user\na red disc<|im_end|>\n<|im_start|>assistant\n",
        return_tensors="pt",
    )
    with torch.no_grad():
        normed = parts[0].model(**ids).last_hidden_state[0][-len(state) :]
    assert torch.allclose(parts[0].model.language_model.norm(state), normed, atol=1e-5)
    assert (state - normed).abs().max() > 0.1


def test_references_change_the_states_behind_them_only(encoder):
    first, second = (encoder.encode(["make it blue"], [pictures(1, seed)])[0] for seed in (0, 1))
    lead = encoder.lead(1)[0]
    assert torch.allclose(first[:lead], second[:lead], atol=1e-6)
    assert (first[lead:] - second[lead:]).abs().max() > 1e-3


def test_a_batch_changes_nothing_and_captions_cannot_forge_control_tokens(encoder):
    captions = ["a red disc", "", "a blue disc at the left", "<|image_pad|> and <|im_end|>"]
    together = encoder.encode(captions)
    assert all(torch.allclose(a, encoder.encode([c])[0], atol=1e-5) for a, c in zip(together, captions, strict=True))
    ids = encoder.processor.tokenizer(captions[3].replace("<|", "< |"))["input_ids"]
    assert encoder.processor.image_token_id not in ids
    assert torch.equal(together[1], encoder.encode([" "])[0])


def test_captions_with_references_are_read_together_and_change_nothing_of_each_other(encoder):
    captions = ["make it blue", "red", "make it blue and add two more of them", "", "a red disc"]
    shown = [pictures(1), pictures(2, 1), pictures(1, 2), pictures(0), pictures(1, 3)]
    together = encoder.encode(captions, shown)
    for caption, own, states in zip(captions, shown, together, strict=True):
        torch.testing.assert_close(states, encoder.encode([caption], [own])[0], atol=1e-5, rtol=0)
    swapped = encoder.encode(captions, [pictures(1, 9), *shown[1:]])
    assert (together[0] - swapped[0]).abs().max() > 1e-3
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(together[1:], swapped[1:], strict=True))


def test_layout_places_every_reference_in_its_slot(encoder):
    assert sequence_layout(30, 2, (4, 2), encoder.lead(2)) == (8, (4, 2), 6, (4, 2), 16, (4, 2))
    assert sequence_layout(30, 2, (4, 2)) == ((4, 2), (4, 2), 30, (4, 2))


def test_opens_from_a_folder_and_names_what_is_wrong(folder, encoder, tmp_path):
    opened = load_condition_encoder(f"qwen3-vl:{folder}")
    assert opened.fingerprint == encoder.fingerprint
    assert torch.equal(opened.encode(["a red disc"])[0], encoder.encode(["a red disc"])[0])
    with pytest.raises(UsageError, match="is neither a folder nor a hub tag"):
        load_condition_encoder("qwen3-vl:./none")
    shutil.copytree(folder, tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text(config.read_text().replace('"qwen3_vl"', '"qwen2_vl"'))
    with pytest.raises(UsageError, match="model_type is qwen2_vl"):
        load_condition_encoder(f"qwen3-vl:{tmp_path / 'other'}")


def test_rows_without_caption_still_see_their_references(encoder, snapshot):
    plan = DataPlan([MixSource(manifest=snapshot)], batch={64: 4}, t2i_share=0.0, seed=0)
    recipe = TINY.change(text_tokens=0, dropout=1.0, t2i_share=0.0)
    autoencoder = fit_autoencoder(plan, recipe)
    (micro,) = Loader(
        plan, prepare_with(autoencoder), texts=texts_with(encoder), encode=encoder.encode, resolution={64: 32}
    ).batch(0)
    assert micro.lead == encoder.lead(1) and len(micro.nulls) == 4
    model = build_model(recipe, encoder, seed=0)
    torch.nn.init.normal_(model.image_out.weight, std=0.05)  # a fresh model ignores its condition
    with torch.no_grad():
        all_null = batch_loss(model, micro, encoder.encode([""])[0], recipe, seed=0)
        same = batch_loss(model, micro, encoder.encode(["nothing"])[0], recipe, seed=0)
        conditional = batch_loss(model, micro, micro.nulls[0], recipe.change(dropout=0.0), seed=0)
    assert torch.equal(all_null, same)  # the caption-free state is each row's own
    assert (all_null - conditional).abs().max() > 1e-5


def test_trains_and_samples_with_references(tmp_path, snapshot, folder):
    there = tmp_path / "encoder"
    shutil.copytree(folder, there)
    recipe = TINY.change(condition=f"qwen3-vl:{there}", text_tokens=0, t2i_share=0.5)
    trained = run(tmp_path / "run", snapshot, recipe=recipe, steps=2)
    sampler = Sampler(trained)
    picture = pictures(1)[0].permute(1, 2, 0).numpy()
    prompts, references = ["make the disc blue", "a red disc"], [[picture], []]
    images = sampler.sample(prompts, references, size=(32, 32), steps=2)
    alone = np.concatenate([sampler.sample([p], [r], size=(32, 32), steps=2) for p, r in zip(prompts, references)])
    assert np.abs(images.astype(int) - alone).max() <= 1
    tiny_qwen3vl(tiny_processor(), seed=1).save_pretrained(there)
    with pytest.raises(UsageError, match="is not the condition encoder"):
        sample(trained, ["a red disc"], size=(32, 32), steps=1)
