"""Ready questions to the catalog; every one of them is run by the tests."""

from __future__ import annotations

EXAMPLES: tuple[tuple[str, str], ...] = (
    (
        "Failure rate by capability and round",
        "select round, arm, capability, count(*) as checks, round(avg((not passed)::int), 3) as failure_rate\n"
        "from signals where passed is not null group by all order by capability, round, arm",
    ),
    (
        "Where cases stand, by remedy track",
        "select track, capability, status, count(*) as cases\nfrom cases group by all order by cases desc",
    ),
    (
        "Why rows were dropped",
        "select filter, count(*) as n, min(score) as lowest, max(score) as highest\n"
        "from decisions where outcome = 'dropped' group by filter order by n desc",
    ),
    (
        "Share admitted, by source",
        "select source, count(*) as n, round(avg((outcome = 'admitted')::int), 3) as admitted\n"
        "from samples join decisions using (source_uri) group by source order by n desc",
    ),
    (
        "Cases that took more than one round",
        "select case_id, capability, prompt, round as found_in, fixed_in\n"
        "from cases where fixed_in > round + 1 or status = 're-opened' order by found_in",
    ),
)
