"""A job as the ledger of runs keeps it."""

import json
from dataclasses import asdict

from flywheel.rounds.job import Job


def test_a_job_comes_back_from_json() -> None:
    job = Job("/w", "/photos", captions="/c.jsonl", policy="demo", preset="quick", seed=3, rounds=5, auto_approve=True)
    assert Job(**json.loads(json.dumps(asdict(job)))) == job


def test_several_sources() -> None:
    job = Job("/w", ("/photos", "s3://bucket/pool"), retry=True)
    assert Job(**json.loads(json.dumps(asdict(job)))) == job and job.sources == ("/photos", "s3://bucket/pool")
    assert Job("/w", "/photos").sources == ("/photos",)


def test_a_run_reviews_its_samples_unless_it_is_told_not_to() -> None:
    job = Job("/w", "/photos")
    assert (job.auto_approve, job.rounds, job.policy, job.preset) == (False, 2, None, "tiny")
