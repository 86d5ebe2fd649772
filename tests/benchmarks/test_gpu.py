"""The benchmark of a GPU runs: every line, at small size on this machine's CPU."""

from __future__ import annotations

from benchmarks import gpu


def test_every_line_of_the_gpu_benchmark_runs(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    figures, failed = gpu.measure(gpu.tiny())
    assert not failed and all(value > 0 for value in figures.values())
    lines = ("train_of_peak", "clip_pictures_per_s", "nsfw_pictures_per_s", "vae_encode_pictures_per_s", "sample_s",
             "rl_step_s", "dmd_step_s")  # fmt: skip
    assert figures.keys() > {f"gpu_{name}" for name in lines}
    assert figures["gpu_sample_without_cache_s"] > figures["gpu_sample_s"]


def test_a_line_that_fails_is_named_and_the_others_go_on(monkeypatch) -> None:
    monkeypatch.setattr(gpu, "vae", lambda size: 1 / 0)
    figures, failed = gpu.measure(gpu.tiny(), ["vae", "sample"])
    assert failed == ["vae"] and "gpu_sample_s" in figures
